"""`moderay explain`: a statement of reasons for one verdict."""
