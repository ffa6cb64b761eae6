"""Tails logs live with boto3. Usage: boto3_livetail.py ENDPOINT.

boto3 puts a word before the endpoint's host for StartLiveTail ("stream-", once "streaming-"). Nothing resolves stream-localhost, so clients
of one machine switch that off, which two of three clients here do; the third resolves the name itself, as a DNS entry would.
"""

import os
import socket
import sys
import threading
import time
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import EventStreamError

endpoint = sys.argv[1]
port = urlsplit(endpoint).port
logs = boto3.client("logs", endpoint_url=endpoint, config=Config(inject_host_prefix=False))
os.environ["AWS_DISABLE_HOST_PREFIX_INJECTION"] = "true"
by_environment = boto3.client("logs", endpoint_url=endpoint)
del os.environ["AWS_DISABLE_HOST_PREFIX_INJECTION"]
prefixed = boto3.client("logs", endpoint_url=f"http://localhost:{port}")
resolve, prefixes = socket.getaddrinfo, []


def resolved(host, *rest, **more):
    if str(host) in ("stream-localhost", "streaming-localhost"):
        prefixes.append(host)
        host = "127.0.0.1"
    return resolve(host, *rest, **more)


socket.getaddrinfo = resolved

for group in ("/live/a", "/live/b"):
    logs.create_log_group(logGroupName=group)
    for name in ("web/1", "db"):
        logs.create_log_stream(logGroupName=group, logStreamName=name)
arns = [g["logGroupArn"] for g in logs.describe_log_groups(logGroupNamePrefix="/live/")["logGroups"]]
say = lambda group, name, *texts: logs.put_log_events(
    logGroupName=group, logStreamName=name, logEvents=[{"timestamp": int(time.time() * 1000), "message": t} for t in texts]
)


def follow(client, groups, wanted, write, **more):
    """The events of a session until there are so many; write is called when it has begun."""
    stream = client.start_live_tail(logGroupIdentifiers=groups, **more)["responseStream"]
    found, updates, begun = [], 0, None
    for event in stream:
        if "sessionStart" in event:
            begun = event["sessionStart"]
            assert begun["logGroupIdentifiers"] == groups and begun["sessionId"] and begun["requestId"], begun
            threading.Thread(target=write).start()
            continue
        update = event["sessionUpdate"]
        assert begun and update["sessionMetadata"]["sampled"] is False and len(update["sessionResults"]) <= 500, update
        found += update["sessionResults"]
        updates += 1
        assert updates < 120, found
        if len(found) >= wanted:
            break
    stream.close()
    return found


say("/live/a", "db", "before the session")
for client in (logs, by_environment, prefixed):
    found = follow(client, arns, 3, lambda: (say("/live/a", "web/1", "ERROR one", "fine"), say("/live/b", "db", "ERROR two \u00e4\n\"", "ERROR three")), logEventFilterPattern="ERROR")
    assert sorted(e["message"] for e in found) == ["ERROR one", "ERROR three", 'ERROR two \u00e4\n"'], found
    assert {(e["logGroupIdentifier"], e["logStreamName"]) for e in found} == {(arns[0], "web/1"), (arns[1], "db")}, found
    assert all(abs(e["timestamp"] - e["ingestionTime"]) < 60_000 for e in found), found
assert prefixes, "no host prefix was sent"
found = follow(logs, arns[:1], 1, lambda: (say("/live/a", "db", "no"), say("/live/a", "web/1", "yes")), logStreamNamePrefixes=["web/"])
assert [e["message"] for e in found] == ["yes"], found
found = follow(logs, arns[:1], 1, lambda: (say("/live/a", "web/1", "no"), say("/live/a", "db", "yes")), logStreamNames=["db"])
assert [e["message"] for e in found] == ["yes"], found


def refused(exception, **arguments):
    try:
        logs.start_live_tail(**arguments)
    except exception:
        return
    raise AssertionError(f"{arguments} is taken")


refused(logs.exceptions.InvalidParameterException, logGroupIdentifiers=arns, logStreamNames=["db"])
refused(logs.exceptions.InvalidParameterException, logGroupIdentifiers=arns[:1], logStreamNames=["db"], logStreamNamePrefixes=["d"])
refused(logs.exceptions.InvalidParameterException, logGroupIdentifiers=["/live/a"])
refused(logs.exceptions.ResourceNotFoundException, logGroupIdentifiers=[arns[0] + "x"])
refused(logs.exceptions.InvalidParameterException, logGroupIdentifiers=arns * 6)

# Sessions whose clients have left do not count: they end with their next second.
sessions = []
while len(sessions) < 15:
    try:
        sessions.append(logs.start_live_tail(logGroupIdentifiers=arns)["responseStream"])
    except logs.exceptions.LimitExceededException:
        time.sleep(0.2)
refused(logs.exceptions.LimitExceededException, logGroupIdentifiers=arns)
for s in sessions[1:]:
    s.close()

print("ready", flush=True)
try:
    for event in sessions[0]:
        pass
except EventStreamError as e:
    assert e.response["Error"]["Code"] == "ServiceUnavailable", e
    print("told", flush=True)
