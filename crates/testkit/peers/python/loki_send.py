"""Sends two log lines with python-logging-loki, by Basic auth.

Arguments: URL USER KEY VERSION, where VERSION 1 is today's JSON and 0 the
legacy one. The library raises on any answer but 204; this program then
exits with 1.
"""

import logging
import sys

import logging_loki

url, user, key, version = sys.argv[1:]


class Strict(logging_loki.LokiHandler):
    def handleError(self, record):  # the library would only print the error
        raise


logger = logging.getLogger("okmon.peers")
logger.propagate = False
logger.addHandler(Strict(url=url, tags={"app": "okmon-python"}, auth=(user, key), version=version))
for n in range(2):
    logger.error("order %d failed: Zahlung ungültig", n)
