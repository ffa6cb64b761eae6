"""Walks through CloudWatch Logs with boto3. Usage: boto3_logs.py ENDPOINT."""

import sys
import time

import boto3

logs = boto3.client("logs", endpoint_url=sys.argv[1])
now = int(time.time() * 1000)

logs.create_log_group(logGroupName="/app/a", tags={"team": "one"}, logGroupClass="STANDARD")
logs.create_log_group(logGroupName="/app/b")
logs.put_retention_policy(logGroupName="/app/a", retentionInDays=30)
for name in ("web/1", "web/2", "db"):
    logs.create_log_stream(logGroupName="/app/a", logStreamName=name)
    events = [{"timestamp": now + i, "message": f'{{"from": "{name}", "n": {i}}}'} for i in range(25)]
    out = logs.put_log_events(logGroupName="/app/a", logStreamName=name, logEvents=events, sequenceToken="whatever")
    assert "rejectedLogEventsInfo" not in out and out["nextSequenceToken"], out
old = logs.put_log_events(logGroupName="/app/a", logStreamName="db", logEvents=[{"timestamp": now - 20 * 86400000, "message": "old"}])
assert old["rejectedLogEventsInfo"] == {"tooOldLogEventEndIndex": 1}, old

groups = [g for p in logs.get_paginator("describe_log_groups").paginate(PaginationConfig={"PageSize": 1}) for g in p["logGroups"]]
assert [g["logGroupName"] for g in groups] == ["/app/a", "/app/b"], groups
assert groups[0]["retentionInDays"] == 30 and groups[0]["storedBytes"] > 0 and groups[1]["storedBytes"] == 0, groups
arn = groups[0]["logGroupArn"]
assert groups[0]["arn"] == arn + ":*" and [g["logGroupArn"] for g in logs.list_log_groups(logGroupNamePattern="^/app/a")["logGroups"]] == [arn]
streams = [s for p in logs.get_paginator("describe_log_streams").paginate(logGroupIdentifier=arn, PaginationConfig={"PageSize": 2}) for s in p["logStreams"]]
assert [s["logStreamName"] for s in streams] == ["db", "web/1", "web/2"], streams
assert (streams[0]["firstEventTimestamp"], streams[0]["lastEventTimestamp"]) == (now, now + 24), streams
assert streams[0]["lastIngestionTime"] >= streams[0]["creationTime"], streams

# Every event once, in order, whatever the page.
pages = logs.get_paginator("filter_log_events").paginate(logGroupName="/app/a", PaginationConfig={"PageSize": 7})
found = [e for p in pages for e in p["events"]]
assert len(found) == 75 and len({e["eventId"] for e in found}) == 75, len(found)
assert [(e["timestamp"], e["logStreamName"]) for e in found] == sorted((e["timestamp"], e["logStreamName"]) for e in found)
web = [e for p in logs.get_paginator("filter_log_events").paginate(logGroupName="/app/a", logStreamNamePrefix="web/", filterPattern='{ $.n >= 20 && $.from != "web/2" }') for e in p["events"]]
assert [e["timestamp"] - now for e in web] == [20, 21, 22, 23, 24], web
match = logs.test_metric_filter(filterPattern="[level = ERROR, code > 400, ...]", logEventMessages=["INFO 500 x", "ERROR 500 y z", "ERROR 399 z"])["matches"]
assert [m["extractedValues"] for m in match] == [{"$level": "ERROR", "$code": "500", "$3": "y", "$4": "z"}], match

# Tokens forwards and back.
get = lambda **more: logs.get_log_events(logGroupName="/app/a", logStreamName="web/1", limit=10, **more)
seen, token = [], {}
while True:
    page = get(startFromHead=True, **token)
    if token.get("nextToken") == page["nextForwardToken"]:
        break
    seen += [e["timestamp"] - now for e in page["events"]]
    token = {"nextToken": page["nextForwardToken"]}
assert seen == list(range(25)), seen
last = get()
assert [e["timestamp"] - now for e in last["events"]] == list(range(15, 25)), last
assert [e["timestamp"] - now for e in get(nextToken=last["nextBackwardToken"])["events"]] == list(range(5, 15))

logs.tag_resource(resourceArn=arn, tags={"stage": "test"})
logs.untag_log_group(logGroupName="/app/a", tags=["team"])
assert logs.list_tags_for_resource(resourceArn=arn)["tags"] == {"stage": "test"}


def refused(exception, call, **arguments):
    try:
        call(**arguments)
    except exception as e:
        return e.response["Error"]["Message"]
    raise AssertionError(f"{arguments} is taken")


assert refused(logs.exceptions.ResourceAlreadyExistsException, logs.create_log_group, logGroupName="/app/a") == "The specified log group already exists"
assert refused(logs.exceptions.ResourceNotFoundException, logs.describe_log_streams, logGroupName="/none") == "The specified log group does not exist."
assert refused(logs.exceptions.ResourceNotFoundException, logs.get_log_events, logGroupName="/app/a", logStreamName="x") == "The specified log stream does not exist."
refused(logs.exceptions.InvalidParameterException, logs.filter_log_events, logGroupName="/app/a", filterPattern="{ $.a")
refused(logs.exceptions.InvalidParameterException, logs.put_retention_policy, logGroupName="/app/a", retentionInDays=2)
refused(logs.exceptions.ClientError, logs.start_query, logGroupName="/app/a", startTime=0, endTime=1, queryString="fields @message")

logs.delete_log_stream(logGroupName="/app/a", logStreamName="db")
logs.delete_log_group(logGroupName="/app/a")
assert [g["logGroupName"] for g in logs.describe_log_groups()["logGroups"]] == ["/app/b"]
