"""What clients are told of the instances, the upstreams and what balances over them."""

from __future__ import annotations

from app.cluster import Cluster
from app.schemas.cluster import (
    ClusterStatus,
    DecisionReport,
    FailoverCounts,
    InstanceReport,
    ScalingReport,
    UpstreamReport,
)
from app.settings import Settings


def cluster_report(cluster: Cluster, settings: Settings) -> ClusterStatus:
    statuses = cluster.fleet.statuses()
    instances = {each.name: InstanceReport.of(each) for each in statuses if each.url is None}
    upstreams = {each.name: UpstreamReport.of(each) for each in statuses if each.url is not None}
    running = sum(each.is_running for each in instances.values())
    return ClusterStatus(
        is_running=running > 0 or any(each.is_running for each in upstreams.values()),
        total_instances=len(instances),
        running_instances=running,
        load_balancer_strategy=cluster.fleet.strategy,
        instances=instances,
        upstreams=upstreams,
        auto_scaling=_scaling(cluster, settings),
        queue_depth=cluster.balancer.queue_depth,
        failovers=_failovers(cluster),
    )


def _scaling(cluster: Cluster, settings: Settings) -> ScalingReport:
    models = cluster.fleet.models()
    return ScalingReport(
        enabled=cluster.scaling is not None,
        min_instances=settings.min_instances,
        max_instances=settings.max_instances,
        target=settings.scale_target,
        ongoing={model: cluster.balancer.ongoing(model) for model in models},
        decisions=_decisions(cluster, models),
    )


def _decisions(cluster: Cluster, models: list[str]) -> list[DecisionReport]:
    if cluster.scaling is None:
        return []
    decisions = [
        DecisionReport(seconds_ago=ago, model=model, instances=each.instances, reason=each.reason)
        for model in models
        for ago, each in cluster.scaling.history(model)
    ]
    return sorted(decisions, key=lambda decision: decision.seconds_ago)


def _failovers(cluster: Cluster) -> FailoverCounts:
    counts = cluster.failovers.counts
    return FailoverCounts(retried=counts["retried"], resumed=counts["resumed"], broken=counts["broken"])
