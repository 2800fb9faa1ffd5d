"""A model that somebody serves already: an OpenAI-compatible Responses endpoint, asked in words.

`spec` is what the driver sends, `client` the live session, `responses_api` the format of requests
and replies, `backoff` how long everybody waits, `failures` what a person is told, `access` where
the key may go.
"""
