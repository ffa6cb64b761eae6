"""Walks through a task's and a service's life with boto3. Usage: boto3_walk.py ENDPOINT IMAGE (with a shell as entry point)."""

import sys

import boto3
import botocore.exceptions

endpoint, image = sys.argv[1:]
ecs, ecr, elb = (boto3.client(s, endpoint_url=endpoint) for s in ("ecs", "ecr", "elbv2"))
quick = {"Delay": 1, "MaxAttempts": 180}

for i in range(3):
    definition = ecs.register_task_definition(
        family="sleeper",
        containerDefinitions=[{"name": "main", "image": image, "memory": 32, "command": [f"busybox sleep {600 + i}"], "stopTimeout": 2}],
    )["taskDefinition"]
assert definition["revision"] == 3 and definition["status"] == "ACTIVE", definition
pages = list(ecs.get_paginator("list_task_definitions").paginate(familyPrefix="sleeper", PaginationConfig={"PageSize": 1}))
arns = [a for p in pages for a in p["taskDefinitionArns"]]
assert len(arns) == 3 and len(set(arns)) == 3, arns

# One task from its start to its end.
ran = ecs.run_task(taskDefinition="sleeper", count=3, startedBy="boto3", tags=[{"key": "made-by", "value": "boto3"}])
assert not ran["failures"], ran["failures"]
tasks = sorted(t["taskArn"] for t in ran["tasks"])
ecs.get_waiter("tasks_running").wait(tasks=tasks, WaiterConfig=quick)
listed = [a for p in ecs.get_paginator("list_tasks").paginate(startedBy="boto3", PaginationConfig={"PageSize": 2}) for a in p["taskArns"]]
assert sorted(listed) == tasks, (listed, tasks)
one = ecs.describe_tasks(tasks=tasks[:1], include=["TAGS"])["tasks"][0]
assert one["lastStatus"] == "RUNNING" and one["tags"] == [{"key": "made-by", "value": "boto3"}], one
assert one["createdAt"] <= one["startedAt"], one
for t in tasks:
    ecs.stop_task(task=t, reason="enough")
ecs.get_waiter("tasks_stopped").wait(tasks=tasks, WaiterConfig=quick)
for t in ecs.describe_tasks(tasks=tasks)["tasks"]:
    assert (t["stopCode"], t["stoppedReason"]) == ("UserInitiated", "enough"), t
    assert t["startedAt"] <= t["stoppingAt"] <= t["stoppedAt"], t

# A service: created, scaled, updated, deleted.
ecs.create_service(serviceName="sleepers", taskDefinition="sleeper:1", desiredCount=1)
ecs.get_waiter("services_stable").wait(services=["sleepers"], WaiterConfig=quick)
ecs.update_service(service="sleepers", taskDefinition="sleeper:2", desiredCount=2)
ecs.get_waiter("services_stable").wait(services=["sleepers"], WaiterConfig=quick)
service = ecs.describe_services(services=["sleepers"])["services"][0]
assert service["runningCount"] == 2 and service["taskDefinition"].endswith("sleeper:2"), service
names = [a for p in ecs.get_paginator("list_services").paginate(PaginationConfig={"PageSize": 1}) for a in p["serviceArns"]]
assert names == [service["serviceArn"]], names
ecs.delete_service(service="sleepers", force=True)
ecs.get_waiter("services_inactive").wait(services=["sleepers"], WaiterConfig=quick)

# Pages of other families.
for i in range(5):
    elb.create_target_group(Name=f"group-{i}", Protocol="HTTP", Port=80, VpcId=boto3.client("ec2", endpoint_url=endpoint).describe_vpcs()["Vpcs"][0]["VpcId"])
    ecr.create_repository(repositoryName=f"repository-{i}")
groups = [g["TargetGroupName"] for p in elb.get_paginator("describe_target_groups").paginate(PaginationConfig={"PageSize": 2}) for g in p["TargetGroups"]]
assert sorted(groups) == [f"group-{i}" for i in range(5)], groups
repositories = [r["repositoryName"] for p in ecr.get_paginator("describe_repositories").paginate(PaginationConfig={"PageSize": 2}) for r in p["repositories"]]
assert sorted(repositories) == [f"repository-{i}" for i in range(5)] + ["shell"], repositories
images = [i for p in ecr.get_paginator("describe_images").paginate(repositoryName="shell") for i in p["imageDetails"]]
assert images[0]["imageTags"] == ["1"], images

# Errors are the classes of the service's model.
try:
    ecs.describe_services(cluster="nowhere", services=["x"])
    raise AssertionError("a cluster that does not exist was described")
except ecs.exceptions.ClusterNotFoundException:
    pass
try:
    ecr.create_repository(repositoryName="repository-0")
    raise AssertionError("a repository was made twice")
except ecr.exceptions.RepositoryAlreadyExistsException as e:
    assert e.response["ResponseMetadata"]["HTTPStatusCode"] == 400, e.response
try:
    boto3.client("ecs", endpoint_url=endpoint, aws_access_key_id="test", aws_secret_access_key="wrong").list_clusters()
    raise AssertionError("a wrong secret was taken")
except botocore.exceptions.ClientError as e:
    assert e.response["Error"]["Code"] == "InvalidSignatureException", e.response
