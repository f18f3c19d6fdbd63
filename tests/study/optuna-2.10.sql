BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('v2.6.0.a');
CREATE TABLE studies (
	study_id INTEGER NOT NULL, 
	study_name VARCHAR(512) NOT NULL, 
	PRIMARY KEY (study_id)
);
INSERT INTO "studies" VALUES(1,'demo');
CREATE TABLE study_directions (
	study_direction_id INTEGER NOT NULL, 
	direction VARCHAR(8) NOT NULL, 
	study_id INTEGER NOT NULL, 
	objective INTEGER NOT NULL, 
	PRIMARY KEY (study_direction_id), 
	UNIQUE (study_id, objective), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "study_directions" VALUES(1,'MAXIMIZE',1,0);
CREATE TABLE study_system_attributes (
	study_system_attribute_id INTEGER NOT NULL, 
	study_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (study_system_attribute_id), 
	UNIQUE (study_id, "key"), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
CREATE TABLE study_user_attributes (
	study_user_attribute_id INTEGER NOT NULL, 
	study_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (study_user_attribute_id), 
	UNIQUE (study_id, "key"), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "study_user_attributes" VALUES(1,1,'versions','{"automed": "0.0", "optuna": "2.10.1"}');
INSERT INTO "study_user_attributes" VALUES(2,1,'ready','true');
CREATE TABLE trial_heartbeats (
	trial_heartbeat_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	heartbeat DATETIME NOT NULL, 
	PRIMARY KEY (trial_heartbeat_id), 
	UNIQUE (trial_id), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
CREATE TABLE trial_intermediate_values (
	trial_intermediate_value_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	step INTEGER NOT NULL, 
	intermediate_value FLOAT NOT NULL, 
	PRIMARY KEY (trial_intermediate_value_id), 
	UNIQUE (trial_id, step), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_intermediate_values" VALUES(1,1,0,0.0);
INSERT INTO "trial_intermediate_values" VALUES(2,1,1,0.01);
INSERT INTO "trial_intermediate_values" VALUES(3,1,2,0.02);
INSERT INTO "trial_intermediate_values" VALUES(4,2,0,0.0);
INSERT INTO "trial_intermediate_values" VALUES(5,2,1,1.00131765609412558357e-05);
INSERT INTO "trial_intermediate_values" VALUES(6,2,2,2.00263531218825116715e-05);
INSERT INTO "trial_intermediate_values" VALUES(7,3,0,0.0);
INSERT INTO "trial_intermediate_values" VALUES(8,3,1,9.63468169262437492891e-04);
INSERT INTO "trial_intermediate_values" VALUES(9,3,2,1.92693633852487498578e-03);
INSERT INTO "trial_intermediate_values" VALUES(10,4,0,0.0);
INSERT INTO "trial_intermediate_values" VALUES(11,4,1,1.37068596533398839051e-05);
INSERT INTO "trial_intermediate_values" VALUES(12,4,2,2.74137193066797678103e-05);
CREATE TABLE trial_params (
	param_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	param_name VARCHAR(512), 
	param_value FLOAT, 
	distribution_json TEXT, 
	PRIMARY KEY (param_id), 
	UNIQUE (trial_id, param_name), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_params" VALUES(1,1,'optim.lr',0.01,'{"name": "LogUniformDistribution", "attributes": {"low": 1e-05, "high": 1.0}}');
INSERT INTO "trial_params" VALUES(2,1,'model.name',2.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["alexnet_mini", "vgg11", "resnet18"]}}');
INSERT INTO "trial_params" VALUES(3,1,'train.batch',16.0,'{"name": "IntUniformDistribution", "attributes": {"low": 8, "high": 32, "step": 8}}');
INSERT INTO "trial_params" VALUES(4,1,'dropout.rate',0.4,'{"name": "DiscreteUniformDistribution", "attributes": {"low": 0.0, "high": 0.5, "q": 0.1}}');
INSERT INTO "trial_params" VALUES(5,2,'optim.lr',1.00131765609412558357e-05,'{"name": "LogUniformDistribution", "attributes": {"low": 1e-05, "high": 1.0}}');
INSERT INTO "trial_params" VALUES(6,2,'model.name',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["alexnet_mini", "vgg11", "resnet18"]}}');
INSERT INTO "trial_params" VALUES(7,2,'train.batch',8.0,'{"name": "IntUniformDistribution", "attributes": {"low": 8, "high": 32, "step": 8}}');
INSERT INTO "trial_params" VALUES(8,2,'dropout.rate',0.2,'{"name": "DiscreteUniformDistribution", "attributes": {"low": 0.0, "high": 0.5, "q": 0.1}}');
INSERT INTO "trial_params" VALUES(9,3,'optim.lr',9.63468169262437492891e-04,'{"name": "LogUniformDistribution", "attributes": {"low": 1e-05, "high": 1.0}}');
INSERT INTO "trial_params" VALUES(10,3,'model.name',2.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["alexnet_mini", "vgg11", "resnet18"]}}');
INSERT INTO "trial_params" VALUES(11,3,'train.batch',8.0,'{"name": "IntUniformDistribution", "attributes": {"low": 8, "high": 32, "step": 8}}');
INSERT INTO "trial_params" VALUES(12,3,'dropout.rate',0.5,'{"name": "DiscreteUniformDistribution", "attributes": {"low": 0.0, "high": 0.5, "q": 0.1}}');
INSERT INTO "trial_params" VALUES(13,4,'optim.lr',1.37068596533398839051e-05,'{"name": "LogUniformDistribution", "attributes": {"low": 1e-05, "high": 1.0}}');
INSERT INTO "trial_params" VALUES(14,4,'model.name',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["alexnet_mini", "vgg11", "resnet18"]}}');
INSERT INTO "trial_params" VALUES(15,4,'train.batch',8.0,'{"name": "IntUniformDistribution", "attributes": {"low": 8, "high": 32, "step": 8}}');
INSERT INTO "trial_params" VALUES(16,4,'dropout.rate',0.1,'{"name": "DiscreteUniformDistribution", "attributes": {"low": 0.0, "high": 0.5, "q": 0.1}}');
CREATE TABLE trial_system_attributes (
	trial_system_attribute_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (trial_system_attribute_id), 
	UNIQUE (trial_id, "key"), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_system_attributes" VALUES(1,1,'fixed_params','{"optim.lr": 0.01, "model.name": "resnet18"}');
CREATE TABLE trial_user_attributes (
	trial_user_attribute_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (trial_user_attribute_id), 
	UNIQUE (trial_id, "key"), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_user_attributes" VALUES(1,1,'config','{"optim.lr": 0.01}');
INSERT INTO "trial_user_attributes" VALUES(2,1,'note','"\ud83e\udde0 it''s"');
INSERT INTO "trial_user_attributes" VALUES(3,2,'config','{"optim.lr": 1.0013176560941256e-05}');
INSERT INTO "trial_user_attributes" VALUES(4,2,'note','"\ud83e\udde0 it''s"');
INSERT INTO "trial_user_attributes" VALUES(5,3,'config','{"optim.lr": 0.0009634681692624375}');
INSERT INTO "trial_user_attributes" VALUES(6,3,'note','"\ud83e\udde0 it''s"');
INSERT INTO "trial_user_attributes" VALUES(7,4,'config','{"optim.lr": 1.3706859653339884e-05}');
INSERT INTO "trial_user_attributes" VALUES(8,4,'note','"\ud83e\udde0 it''s"');
CREATE TABLE trial_values (
	trial_value_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	objective INTEGER NOT NULL, 
	value FLOAT NOT NULL, 
	PRIMARY KEY (trial_value_id), 
	UNIQUE (trial_id, objective), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_values" VALUES(1,1,0,0.01);
INSERT INTO "trial_values" VALUES(2,2,0,2.00263531218825116715e-05);
INSERT INTO "trial_values" VALUES(3,3,0,9.63468169262437492891e-04);
INSERT INTO "trial_values" VALUES(4,4,0,1.37068596533398839051e-05);
CREATE TABLE trials (
	trial_id INTEGER NOT NULL, 
	number INTEGER, 
	study_id INTEGER, 
	state VARCHAR(8) NOT NULL, 
	datetime_start DATETIME, 
	datetime_complete DATETIME, 
	PRIMARY KEY (trial_id), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "trials" VALUES(1,0,1,'COMPLETE','2026-11-22 02:37:25.001245','2026-11-22 02:37:25.457874');
INSERT INTO "trials" VALUES(2,1,1,'PRUNED','2026-11-22 02:37:25.513068','2026-11-22 02:37:25.923364');
INSERT INTO "trials" VALUES(3,2,1,'COMPLETE','2026-11-22 02:37:25.966193','2026-11-22 02:37:26.405382');
INSERT INTO "trials" VALUES(4,3,1,'COMPLETE','2026-11-22 02:37:26.456226','2026-11-22 02:37:26.839837');
CREATE TABLE version_info (
	version_info_id INTEGER NOT NULL, 
	schema_version INTEGER, 
	library_version VARCHAR(256), 
	PRIMARY KEY (version_info_id), 
	CHECK (version_info_id=1)
);
INSERT INTO "version_info" VALUES(1,12,'2.10.1');
CREATE UNIQUE INDEX ix_studies_study_name ON studies (study_name);
COMMIT;
