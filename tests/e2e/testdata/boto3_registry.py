# What boto3 makes of the registry's operations, against the platform at argv[1], whose repository "web" has v1 and v2.
import sys
import time

import boto3

ecr = boto3.client("ecr", endpoint_url=sys.argv[1])


def refused(error, f, **kwargs):
    try:
        out = f(**kwargs)
    except error as e:
        return str(e)
    raise AssertionError(f"{f.__name__} answered {out}")


# Lifecycle policies.
policy = '{"rules":[{"rulePriority":1,"selection":{"tagStatus":"any","countType":"sinceImagePushed","countUnit":"days","countNumber":1},"action":{"type":"expire"}}]}'
refused(ecr.exceptions.LifecyclePolicyNotFoundException, ecr.get_lifecycle_policy, repositoryName="web")
ecr.put_lifecycle_policy(repositoryName="web", lifecyclePolicyText=policy)
assert ecr.get_lifecycle_policy(repositoryName="web")["lifecyclePolicyText"] == policy
refused(ecr.exceptions.LifecyclePolicyPreviewNotFoundException, ecr.get_lifecycle_policy_preview, repositoryName="web")
ecr.start_lifecycle_policy_preview(repositoryName="web")
ecr.get_waiter("lifecycle_policy_preview_complete").wait(repositoryName="web")
pages = list(ecr.get_paginator("get_lifecycle_policy_preview").paginate(repositoryName="web", PaginationConfig={"PageSize": 1}))
assert pages[0]["summary"]["expiringImageTotalCount"] == 0, pages
assert ecr.delete_lifecycle_policy(repositoryName="web")["lifecyclePolicyText"] == policy

# Storage classes.
out = ecr.update_image_storage_class(repositoryName="web", imageId={"imageTag": "v1"}, targetStorageClass="ARCHIVE")
assert out["imageStatus"] == "ARCHIVED", out
tags = lambda **f: sorted(t for p in ecr.get_paginator("describe_images").paginate(repositoryName="web", **f) for i in p["imageDetails"] for t in i["imageTags"])
assert tags() == ["v2"] and tags(filter={"imageStatus": "ANY"}) == ["v1", "v2"], tags(filter={"imageStatus": "ANY"})
got = ecr.batch_get_image(repositoryName="web", imageIds=[{"imageTag": "v1"}])
assert got["failures"][0]["failureCode"] == "ImageNotFound", got
ecr.update_image_storage_class(repositoryName="web", imageId={"imageTag": "v1"}, targetStorageClass="STANDARD")
assert tags() == ["v1", "v2"]
digest = ecr.describe_images(repositoryName="web", imageIds=[{"imageTag": "v1"}])["imageDetails"][0]["imageDigest"]
assert ecr.list_image_referrers(repositoryName="web", subjectId={"imageDigest": digest})["referrers"] == []

# Settings of the registry.
assert ecr.get_account_setting(name="BASIC_SCAN_TYPE_VERSION")["value"] == "AWS_NATIVE"
ecr.put_account_setting(name="BLOB_MOUNTING", value="DISABLED")
assert ecr.get_account_setting(name="BLOB_MOUNTING")["value"] == "DISABLED"
ecr.put_image_tag_mutability(repositoryName="web", imageTagMutability="IMMUTABLE_WITH_EXCLUSION", imageTagMutabilityExclusionFilters=[{"filterType": "WILDCARD", "filter": "dev*"}])
principal = "arn:aws:iam::000000000000:role/scanner"
ecr.register_pull_time_update_exclusion(principalArn=principal)
refused(ecr.exceptions.ExclusionAlreadyExistsException, ecr.register_pull_time_update_exclusion, principalArn=principal)
assert ecr.list_pull_time_update_exclusions()["pullTimeUpdateExclusions"] == [principal]
ecr.deregister_pull_time_update_exclusion(principalArn=principal)
refused(ecr.exceptions.ExclusionNotFoundException, ecr.deregister_pull_time_update_exclusion, principalArn=principal)

# Registry policy and replication.
refused(ecr.exceptions.RegistryPolicyNotFoundException, ecr.get_registry_policy)
text = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111111111111:root"},"Action":"ecr:ReplicateImage","Resource":"*"}]}'
assert ecr.put_registry_policy(policyText=text)["registryId"] == "000000000000"
assert ecr.get_registry_policy()["policyText"] == text
assert ecr.delete_registry_policy()["policyText"] == text
rules = [{"destinations": [{"region": "eu-west-1", "registryId": "000000000000"}], "repositoryFilters": [{"filter": "prod", "filterType": "PREFIX_MATCH"}]}]
ecr.put_replication_configuration(replicationConfiguration={"rules": rules})
assert ecr.describe_registry()["replicationConfiguration"]["rules"] == rules, ecr.describe_registry()
assert ecr.describe_image_replication_status(repositoryName="web", imageId={"imageTag": "v1"})["replicationStatuses"] == []

# Templates and pull through cache rules.
ecr.create_repository_creation_template(prefix="team", appliedFor=["CREATE_ON_PUSH"], resourceTags=[{"Key": "a", "Value": "b"}], imageTagMutability="IMMUTABLE", lifecyclePolicy=policy)
refused(ecr.exceptions.TemplateAlreadyExistsException, ecr.create_repository_creation_template, prefix="team", appliedFor=["REPLICATION"])
ecr.update_repository_creation_template(prefix="team", description="ours")
found = [t for p in ecr.get_paginator("describe_repository_creation_templates").paginate() for t in p["repositoryCreationTemplates"]]
assert found[0]["description"] == "ours" and found[0]["imageTagMutability"] == "IMMUTABLE" and found[0]["resourceTags"] == [{"Key": "a", "Value": "b"}], found
ecr.delete_repository_creation_template(prefix="team")
refused(ecr.exceptions.TemplateNotFoundException, ecr.delete_repository_creation_template, prefix="team")
rule = ecr.create_pull_through_cache_rule(ecrRepositoryPrefix="quay", upstreamRegistryUrl="quay.io")
assert rule["upstreamRegistry"] == "quay", rule
refused(ecr.exceptions.PullThroughCacheRuleAlreadyExistsException, ecr.create_pull_through_cache_rule, ecrRepositoryPrefix="quay", upstreamRegistryUrl="quay.io")
found = [r for p in ecr.get_paginator("describe_pull_through_cache_rules").paginate() for r in p["pullThroughCacheRules"]]
assert [r["upstreamRegistryUrl"] for r in found] == ["quay.io"], found
ecr.update_pull_through_cache_rule(ecrRepositoryPrefix="quay")
ecr.delete_pull_through_cache_rule(ecrRepositoryPrefix="quay")
refused(ecr.exceptions.PullThroughCacheRuleNotFoundException, ecr.validate_pull_through_cache_rule, ecrRepositoryPrefix="quay")

# Signatures: the profile "prod" is the platform's, "nobody" is none.
profile = "arn:aws:signer:us-east-1:000000000000:/signing-profiles/"
refused(ecr.exceptions.SigningConfigurationNotFoundException, ecr.get_signing_configuration)
refused(ecr.exceptions.InvalidParameterException, ecr.put_signing_configuration, signingConfiguration={"rules": [{"signingProfileArn": profile + "nobody"}]})
refused(ecr.exceptions.ClientError, ecr.put_signing_configuration, signingConfiguration={"rules": [{"signingProfileArn": profile + "prod", "repositoryFilters": [{"filter": "UPPER", "filterType": "WILDCARD_MATCH"}]}]})
rules = [{"signingProfileArn": profile + "prod", "repositoryFilters": [{"filter": "w*", "filterType": "WILDCARD_MATCH"}]}]
ecr.put_signing_configuration(signingConfiguration={"rules": rules})
assert ecr.get_signing_configuration()["signingConfiguration"]["rules"] == rules
manifest = ecr.batch_get_image(repositoryName="web", imageIds=[{"imageTag": "v1"}])["images"][0]["imageManifest"]
ecr.put_image(repositoryName="web", imageManifest=manifest, imageTag="signed")
for _ in range(600):
    statuses = ecr.describe_image_signing_status(repositoryName="web", imageId={"imageTag": "signed"})["signingStatuses"]
    if statuses[0]["status"] != "IN_PROGRESS":
        break
    time.sleep(0.1)
assert statuses == [{"signingProfileArn": profile + "prod", "status": "COMPLETE"}], statuses
found = ecr.list_image_referrers(repositoryName="web", subjectId={"imageDigest": digest})["referrers"]
assert [r["artifactType"] for r in found] == ["application/vnd.cncf.notary.signature"], found
assert ecr.delete_signing_configuration()["signingConfiguration"]["rules"] == rules
