-- The registry of unversioned_0_2.sql after the development version of 0.2 (commit b23fdd5) opened it: schema version 0002.
BEGIN TRANSACTION;
CREATE TABLE fs_intervals (
	project VARCHAR(64) NOT NULL, 
	"view" VARCHAR(64) NOT NULL, 
	generation INTEGER NOT NULL, 
	start_us BIGINT NOT NULL, 
	end_us BIGINT NOT NULL, 
	PRIMARY KEY (project, "view", generation, start_us)
);
INSERT INTO "fs_intervals" VALUES('shop','user_stats',0,0,1700000000000000);
CREATE TABLE fs_pruning (
	project VARCHAR(64) NOT NULL, 
	kind VARCHAR(16) NOT NULL, 
	id VARCHAR(64) NOT NULL, 
	service VARCHAR(64) NOT NULL, 
	author VARCHAR(255) NOT NULL, 
	made_at BIGINT NOT NULL, 
	document TEXT NOT NULL, 
	PRIMARY KEY (project, kind, id)
);
INSERT INTO "fs_pruning" VALUES('shop','plan','p1','ranking','ada',1795747655909191,'{"service":"ranking"}');
CREATE TABLE fs_registry (
	project VARCHAR(64) NOT NULL, 
	id VARCHAR(32) NOT NULL, 
	PRIMARY KEY (project)
);
INSERT INTO "fs_registry" VALUES('shop','75806a80c6a048ee54c61592e3e5d7d0');
CREATE TABLE fs_reports (
	project VARCHAR(64) NOT NULL, 
	kind VARCHAR(16) NOT NULL, 
	service VARCHAR(64) NOT NULL, 
	author VARCHAR(255) NOT NULL, 
	made_at BIGINT NOT NULL, 
	document TEXT NOT NULL, 
	PRIMARY KEY (project, kind, service)
);
INSERT INTO "fs_reports" VALUES('shop','skew','ranking','ada',1795747655885189,'{"differing":1}');
CREATE TABLE fs_rollouts (
	project VARCHAR(64) NOT NULL, 
	version INTEGER NOT NULL, 
	state VARCHAR(16) NOT NULL, 
	reason TEXT NOT NULL, 
	PRIMARY KEY (project, version)
);
CREATE TABLE fs_schema (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT fs_schema_pkc PRIMARY KEY (version_num)
);
INSERT INTO "fs_schema" VALUES('0002');
CREATE TABLE fs_versions (
	project VARCHAR(64) NOT NULL, 
	version INTEGER NOT NULL, 
	author VARCHAR(255) NOT NULL, 
	applied_at BIGINT NOT NULL, 
	digest VARCHAR(64) NOT NULL, 
	definitions TEXT NOT NULL, 
	PRIMARY KEY (project, version)
);
INSERT INTO "fs_versions" VALUES('shop',1,'ada',1795747655767263,'616f34aa0b1ec0c1297678be7de04c107348742dbef5e4c5574206a053f1298b','{"entities":{"user":{"description":"who orders","dtype":"Int64","join_key":"user_id","owner":"","tags":{}}},"feature_services":{"ranking":{"description":"","features":[{"columns":[["orders_30d","orders_30d"],["tier","tier"]],"view":"user_stats"}],"owner":"","tags":{}}},"feature_views":{"user_stats":{"aggregations":[],"description":"","entities":["user"],"owner":"","schema":[{"default":0,"description":"","dtype":"Int32","name":"orders_30d","owner":"","tags":{}},{"default":null,"description":"","dtype":"String","name":"tier","owner":"","tags":{}}],"source":{"created_timestamp":"created","event_timestamp":"ts","path":"data/orders/*.parquet","schema":[]},"sql":null,"tags":{},"ttl":2592000000000}},"on_demand_feature_views":{},"stream_feature_views":{}}');
INSERT INTO "fs_versions" VALUES('shop',2,'bob',1795747655849857,'26a66603da101e8cce1b75cc1e0848c605ee556d5b0dfda23d0ea348c59072bf','{"entities":{"user":{"description":"who orders","dtype":"Int64","join_key":"user_id","owner":"","tags":{}}},"feature_services":{"ranking":{"description":"","features":[{"columns":[["orders_30d","orders_30d"],["tier","tier"],["spend","spend"]],"view":"user_stats"}],"owner":"","tags":{}}},"feature_views":{"user_stats":{"aggregations":[],"description":"","entities":["user"],"owner":"","schema":[{"default":0,"description":"","dtype":"Int32","name":"orders_30d","owner":"","tags":{}},{"default":null,"description":"","dtype":"String","name":"tier","owner":"","tags":{}},{"default":null,"description":"","dtype":"Float64","name":"spend","owner":"","tags":{}}],"source":{"created_timestamp":"created","event_timestamp":"ts","path":"data/orders/*.parquet","schema":[]},"sql":null,"tags":{},"ttl":2592000000000}},"on_demand_feature_views":{},"stream_feature_views":{}}');
COMMIT;
