#!/usr/bin/env bash
# Splits the monolith: one image, one task definition, one target group and one service for each of users, threads and
# posts, behind one load balancer. It needs docker, aws and curl; neargate dev must run, and the binaries must be built
# (make example). Run it again with another VERSION for a rolling update.
#
#   eval "$(neargate env)"; examples/microservices/deploy.sh [VERSION]
set -euo pipefail
cd "$(dirname "$0")"
version=${1:-v1}
launch_type=${LAUNCH_TYPE:-EC2} # or FARGATE: each task then has an address of its own
cluster=${CLUSTER:-microservices}
count=${COUNT:-2}
port=${PORT:-80} # of the load balancer
export AWS_PAGER=

# AWS CLI before 2.13 does not look at AWS_ENDPOINT_URL, and without it all of this would go to AWS itself.
: "${AWS_ENDPOINT_URL:?is not set: eval \"\$(neargate env)\"}"
aws() { command aws --endpoint-url "$AWS_ENDPOINT_URL" "$@"; }

case $launch_type in
  EC2) target_type=instance network=bridge size=() host_port=0 ;;
  FARGATE) target_type=ip network=awsvpc size=(--cpu 256 --memory 512) host_port=3000 ;; # the smallest size that Fargate has
  *) echo "LAUNCH_TYPE is EC2 or FARGATE, not $launch_type" >&2; exit 1 ;;
esac

step() { printf '\n== %s\n' "$*"; }

# The aws command prints None where a query finds nothing.
none() { [ -z "$1" ] || [ "$1" = None ]; }

step "Find the default network"
vpc=$(aws ec2 describe-vpcs --filters Name=is-default,Values=true --query 'Vpcs[0].VpcId' --output text)
subnets=$(aws ec2 describe-subnets --filters "Name=vpc-id,Values=$vpc" --query 'Subnets[].SubnetId' --output text)
echo "$vpc: $subnets"

step "Log docker in to the registry"
for s in users threads posts; do
  aws ecr describe-repositories --repository-names "$s" >/dev/null 2>&1 || aws ecr create-repository --repository-name "$s" >/dev/null
done
registry=$(aws ecr describe-repositories --repository-names users --query 'repositories[0].repositoryUri' --output text)
registry=${registry%/users}
aws ecr get-login-password | docker login --username AWS --password-stdin "$registry"

step "Build and push one image per service ($version)"
for s in users threads posts; do
  docker build --quiet --build-arg SERVICE="$s" --tag "$registry/$s:$version" . >/dev/null
  docker push --quiet "$registry/$s:$version"
done

step "One cluster and one load balancer"
aws ecs create-cluster --cluster-name "$cluster" --query cluster.status --output text
# shellcheck disable=SC2086 # the subnets are words
lb=$(aws elbv2 create-load-balancer --name microservices --subnets $subnets --query 'LoadBalancers[0].LoadBalancerArn' --output text)
dns=$(aws elbv2 describe-load-balancers --load-balancer-arns "$lb" --query 'LoadBalancers[0].DNSName' --output text)
listener=$(aws elbv2 describe-listeners --load-balancer-arn "$lb" --query "Listeners[?Port==\`$port\`]|[0].ListenerArn" --output text)
if none "$listener"; then
  listener=$(aws elbv2 create-listener --load-balancer-arn "$lb" --protocol HTTP --port "$port" \
    --default-actions 'Type=fixed-response,FixedResponseConfig={StatusCode=404,ContentType=text/plain,MessageBody=no such service}' \
    --query 'Listeners[0].ListenerArn' --output text)
fi

priority=1
for s in users threads posts; do
  step "Service $s"
  group=$(aws elbv2 create-target-group --name "$s" --protocol HTTP --port 80 --vpc-id "$vpc" --target-type $target_type \
    --health-check-path /healthz --health-check-interval-seconds 5 --healthy-threshold-count 2 \
    --query 'TargetGroups[0].TargetGroupArn' --output text)
  rule=$(aws elbv2 describe-rules --listener-arn "$listener" --query "Rules[?Priority=='$priority']|[0].RuleArn" --output text)
  if none "$rule"; then
    aws elbv2 create-rule --listener-arn "$listener" --priority "$priority" \
      --conditions "Field=path-pattern,Values=/api/$s,/api/$s/*" --actions "Type=forward,TargetGroupArn=$group" \
      --query 'Rules[0].RuleArn' --output text
  fi
  definition=$(aws ecs register-task-definition --family "$s" --requires-compatibilities "$launch_type" --network-mode $network "${size[@]}" \
    --container-definitions "[{\"name\":\"$s\",\"image\":\"$registry/$s:$version\",\"cpu\":256,\"memory\":256,\"essential\":true,
      \"stopTimeout\":5,\"environment\":[{\"name\":\"VERSION\",\"value\":\"$version\"}],
      \"portMappings\":[{\"containerPort\":3000,\"hostPort\":$host_port}]}]" \
    --query taskDefinition.taskDefinitionArn --output text)
  status=$(aws ecs describe-services --cluster "$cluster" --services "$s" --query 'services[0].status' --output text)
  if [ "$status" = ACTIVE ]; then
    aws ecs update-service --cluster "$cluster" --service "$s" --task-definition "$definition" --query service.status --output text
  else
    network_configuration=()
    if [ $network = awsvpc ]; then
      network_configuration=(--network-configuration "awsvpcConfiguration={subnets=[${subnets//[[:space:]]/,}]}")
    fi
    aws ecs create-service --cluster "$cluster" --service-name "$s" --task-definition "$definition" --desired-count "$count" \
      --launch-type "$launch_type" --load-balancers "targetGroupArn=$group,containerName=$s,containerPort=3000" \
      "${network_configuration[@]}" --query service.status --output text
  fi
  priority=$((priority + 1))
done

step "Wait until all three are stable"
aws ecs wait services-stable --cluster "$cluster" --services users threads posts

url=http://$dns
[ "$port" = 80 ] || url+=:$port
step "Ask each of them through $url"
# Stable means that the tasks run; the load balancer takes a moment more to find them healthy.
for path in users threads posts/in-thread/1; do
  curl --fail --silent --show-error --retry 20 --retry-delay 1 "$url/api/$path"
done
