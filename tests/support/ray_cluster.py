"""A Ray on this machine that tests share."""

from ray.cluster_utils import Cluster

# Ray gives a node up that does not answer within 30 s; a busy machine takes longer now and then.
ATTEMPTS = 3


def started_ray() -> Cluster:
    """A Ray of two CPUs, without a dashboard.

    Raises:
        Exception: It did not start in any of three attempts.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return Cluster(
                initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False}
            )
        except Exception as error:
            if attempt == ATTEMPTS or "timed out during startup" not in str(error):
                raise
    raise AssertionError("an attempt returns or raises")
