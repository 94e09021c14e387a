"""Aurora MySQL Serverless v2, and RDS Proxy before it: functions sign in with a token, never with a password."""

from __future__ import annotations

from infra.aws.stages import Stage
from infra.aws.storage import reading
from infra.aws.template import Template, att, choose, policy, ref, trust

ENGINE_VERSION = "8.0.mysql_aurora.3.08.2"
MASTER, USER, DATABASE = "hotplug_master", "hotplug", "hotplug"
# chalicelib/core/connections.py reads it and leaves it alone, for SET would pin the proxy's session.
LOCK_WAIT_S = 5


def database(stage: Stage) -> Template:
    """Return the template of the cluster and its proxy."""
    template = Template("Hotplug: database")
    for name in ("Prefix", "DataSubnets", "ClusterGroup", "ProxyGroup", "StorageKeyArn", "DatabaseSecretArn",
                 "MinCapacity", "MaxCapacity", "BackupDays", "DeletionProtection", "Snapshot"):  # fmt: skip
        template.parameter(name)
    template.conditions["FromSnapshot"] = {"Fn::Not": [{"Fn::Equals": [ref("Snapshot"), ""]}]}
    _cluster(template, stage)
    _proxy(template)
    return template


def _cluster(template: Template, stage: Stage) -> None:
    add = template.add
    add("Subnets", "AWS::RDS::DBSubnetGroup", {
        "DBSubnetGroupDescription": "Hotplug", "SubnetIds": {"Fn::Split": [",", ref("DataSubnets")]},
    })  # fmt: skip
    add("ClusterParameters", "AWS::RDS::DBClusterParameterGroup", {
        "Family": "aurora-mysql8.0", "Description": "Hotplug",
        "Parameters": {"require_secure_transport": "ON", "character_set_server": "utf8mb4",
                       "collation_server": "utf8mb4_bin", "time_zone": "UTC"},
    })  # fmt: skip
    add("Parameters", "AWS::RDS::DBParameterGroup", {
        "Family": "aurora-mysql8.0", "Description": "Hotplug",
        "Parameters": {"innodb_lock_wait_timeout": str(LOCK_WAIT_S), "transaction_isolation": "READ-COMMITTED",
                       "slow_query_log": "1", "long_query_time": "1"},
    })  # fmt: skip
    add("Cluster", "AWS::RDS::DBCluster", {
        "Engine": "aurora-mysql", "EngineVersion": ENGINE_VERSION,
        "DBClusterParameterGroupName": ref("ClusterParameters"),
        "DBSubnetGroupName": ref("Subnets"), "VpcSecurityGroupIds": [ref("ClusterGroup")],
        "SnapshotIdentifier": choose("FromSnapshot", ref("Snapshot"), ref("AWS::NoValue")),
        "DatabaseName": choose("FromSnapshot", ref("AWS::NoValue"), DATABASE),
        # RDS makes the master's password, keeps it in Secrets Manager and changes it every seven days.
        "MasterUsername": choose("FromSnapshot", ref("AWS::NoValue"), MASTER),
        "ManageMasterUserPassword": True, "MasterUserSecret": {"KmsKeyId": ref("StorageKeyArn")},
        "StorageEncrypted": True, "KmsKeyId": ref("StorageKeyArn"), "CopyTagsToSnapshot": True,
        "BackupRetentionPeriod": ref("BackupDays"), "DeletionProtection": ref("DeletionProtection"),
        "EnableCloudwatchLogsExports": ["error", "slowquery"],
        "ServerlessV2ScalingConfiguration": {"MinCapacity": ref("MinCapacity"), "MaxCapacity": ref("MaxCapacity")},
    }, DeletionPolicy="Snapshot", UpdateReplacePolicy="Snapshot")  # fmt: skip
    for index in range(1 + stage.readers):
        add("Writer" if index == 0 else f"Reader{index}", "AWS::RDS::DBInstance", {
            "Engine": "aurora-mysql", "DBClusterIdentifier": ref("Cluster"), "DBInstanceClass": "db.serverless",
            "DBParameterGroupName": ref("Parameters"), "PubliclyAccessible": False, "AutoMinorVersionUpgrade": True,
            # Tier 0 and 1 scale with the writer: what takes over is as large as what fell.
            "PromotionTier": min(index, 1), "CACertificateIdentifier": "rds-ca-rsa2048-g1",
        }, DeletionPolicy="Delete", UpdateReplacePolicy="Delete",
            **({"DependsOn": "Writer"} if index else {}))  # fmt: skip
    template.output("ClusterEndpoint", att("Cluster", "Endpoint.Address"))
    template.output("ClusterName", ref("Cluster"))
    template.output("MasterSecretArn", att("Cluster", "MasterUserSecret.SecretArn"))


def _proxy(template: Template) -> None:
    # As AWS documents it for proxies, without a condition:
    # https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/rds-proxy-iam-setup.html
    template.add("ProxyRole", "AWS::IAM::Role", {
        "AssumeRolePolicyDocument": trust("rds.amazonaws.com"),
        "Policies": [{"PolicyName": "secret", "PolicyDocument": policy(*reading(ref("DatabaseSecretArn")))}],
    })  # fmt: skip
    template.add("Proxy", "AWS::RDS::DBProxy", {
        "DBProxyName": ref("Prefix"), "EngineFamily": "MYSQL", "RequireTLS": True, "IdleClientTimeout": 1800,
        "RoleArn": att("ProxyRole", "Arn"),
        "Auth": [{"AuthScheme": "SECRETS", "IAMAuth": "REQUIRED", "SecretArn": ref("DatabaseSecretArn")}],
        "VpcSubnetIds": {"Fn::Split": [",", ref("DataSubnets")]}, "VpcSecurityGroupIds": [ref("ProxyGroup")],
    })  # fmt: skip
    template.add("ProxyTarget", "AWS::RDS::DBProxyTargetGroup", {
        "DBProxyName": ref("Proxy"), "TargetGroupName": "default", "DBClusterIdentifiers": [ref("Cluster")],
        "ConnectionPoolConfigurationInfo": {
            # The rest is for `migrate` and for operators.
            "MaxConnectionsPercent": 90, "MaxIdleConnectionsPercent": 50,
            # A request that waits longer for a connection is answered 503 while there is still time to say so.
            "ConnectionBorrowTimeout": 5,
        },
    }, DependsOn="Writer")  # fmt: skip
    template.output("ProxyEndpoint", att("Proxy", "Endpoint"))
    template.output("ProxyName", ref("Proxy"))
    # arn:…:db-proxy:prx-…: IAM names users by the proxy's id.
    template.output("ProxyId", {"Fn::Select": [6, {"Fn::Split": [":", att("Proxy", "DBProxyArn")]}]})
