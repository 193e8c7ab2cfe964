"""The tables of the ledger, and what older versions of them lack."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

VERSION = 3  # of the tables below; stands in the file as `PRAGMA user_version`
ENDED = ("complete", "paused", "stopped", "infeasible")  # paused: at a rung, and may go on; stopped: will not
ORIGINS = ("fixed point", "sampler")

tables = sa.MetaData()

architecture = sa.Table(
    "architecture",
    tables,
    sa.Column("id", sa.Text, primary_key=True),  # Architecture.id
    sa.Column("json", sa.Text, nullable=False),
    sa.Column("params", sa.Integer, nullable=False),  # the counts are at the resolution of the study's task
    sa.Column("macs", sa.Integer, nullable=False),
    sa.Column("tokens", sa.Integer, nullable=False),
    sa.Column("activations", sa.Integer, nullable=False),
)

trial = sa.Table(
    "trial",
    tables,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),  # Optuna's number too
    sa.Column("architecture", sa.ForeignKey("architecture.id"), nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),  # the latest
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("reason", sa.Text),  # a few words that are counted by
    sa.Column("detail", sa.Text),
    sa.Column("origin", sa.Text, nullable=False),
    sa.Column("label", sa.Text),  # of a fixed point: its name and what was changed
    sa.Column("point", sa.Text),  # JSON; null for a fixed point outside the space
    sa.Column("recipe", sa.Text, nullable=False),  # JSON
    sa.Column("seed", sa.Integer, nullable=False),
    sa.Column("started", sa.Float, nullable=False),  # seconds since 1970, of the first leg that was not lost
    sa.Column("ended", sa.Float),
    sa.Column("why", sa.Text),  # the sampler chose it
    # a trial that is paused at a rung and goes on later is worked on in several legs
    sa.Column("resumed", sa.Float),  # when its latest leg began
    sa.Column("seconds", sa.Float, nullable=False, server_default="0.0"),  # worked on, in the legs that ended
    sa.Column("deaths", sa.Integer, nullable=False, server_default="0"),  # of workers that had it
    sa.Column("gain", sa.Float),  # of hypervolume, expected when it was chosen; null: the sampler did not say
    sa.Column("repeat_failed", sa.Text),  # why it could not be trained anew; null: it could, or nobody tried
)

measurement = sa.Table(
    "measurement",
    tables,
    sa.Column("trial", sa.ForeignKey("trial.number"), nullable=False),
    sa.Column("architecture", sa.ForeignKey("architecture.id"), nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("metric", sa.Text, nullable=False),
    sa.Column("rung", sa.Integer),  # null, as epochs, for what needs no training
    sa.Column("epochs", sa.Integer),
    sa.Column("dataset", sa.Text, nullable=False),
    sa.Column("data", sa.Text),  # fingerprint of its images; null for what needs no training
    sa.Column("resolution", sa.Integer, nullable=False),  # pixels
    sa.Column("recipe", sa.Text, nullable=False),  # JSON
    sa.Column("seed", sa.Integer, nullable=False),
    sa.Column("protocol", sa.Text, nullable=False),
    sa.Column("device", sa.Text, nullable=False),
    sa.Column("batch", sa.Integer, nullable=False),
    sa.Column("precision", sa.Text, nullable=False),
    sa.Column("threads", sa.Integer, nullable=False),
    sa.Column("value", sa.Float, nullable=False),
    sa.Column("low", sa.Float, nullable=False),
    sa.Column("high", sa.Float, nullable=False),
    sa.Column("seconds", sa.Float, nullable=False),
    sa.Column("repeat", sa.Integer, nullable=False, server_default="0"),  # k: of the k-th training anew
    sa.Column("micro_batch", sa.Integer),  # null: the batch fitted
)
# null is unequal to null in SQLite, so a plain primary key would take the throughput of an attempt twice
_ONCE = sa.Index(
    "measurement_once",
    measurement.c.trial,
    measurement.c.attempt,
    measurement.c.metric,
    sa.func.coalesce(measurement.c.rung, sa.literal_column("-1")),
    measurement.c.repeat,
    unique=True,
)

progress = sa.Table(
    "progress",
    tables,
    sa.Column("trial", sa.ForeignKey("trial.number"), primary_key=True, autoincrement=False),
    sa.Column("attempt", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("epoch", sa.Integer, primary_key=True, autoincrement=False),  # finished ones
    sa.Column("loss", sa.Float),
    sa.Column("accuracy", sa.Float),  # %, validation split
)

refused = sa.Table(
    "refused",
    tables,
    sa.Column("reason", sa.Text, primary_key=True),
    sa.Column("count", sa.Integer, nullable=False),  # draws that were refused before they became trials
)

session = sa.Table(
    "session",
    tables,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("started", sa.Float, nullable=False),  # seconds since 1970
    sa.Column("seen", sa.Float, nullable=False),  # the last time anything was written, so a killed one counts too
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("command", sa.Text, nullable=False),
    sa.Column("total", sa.Integer),  # trials that it was after
    sa.Column("manifest", sa.Text),  # JSON: versions, machine, devices of this session
)

TOTAL = sa.select(session.c.total).order_by(session.c.id.desc()).limit(1)
ELAPSED_SECONDS = sa.select(sa.func.coalesce(sa.func.sum(session.c.seen - session.c.started), 0.0))

LAST_SEEN = sa.select(sa.func.max(session.c.seen))

_NEW: dict[int, dict[sa.Column[Any], sa.ColumnElement[Any]]] = {  # version -> with what stands for it in older files
    2: {
        trial.c.why: sa.null(),
        trial.c.resumed: sa.null(),
        trial.c.seconds: sa.func.coalesce(trial.c.ended - trial.c.started, sa.literal_column("0.0")),
        measurement.c.repeat: sa.literal_column("0"),
        measurement.c.micro_batch: sa.null(),
    },
    3: {
        trial.c.deaths: sa.literal_column("0"),
        trial.c.gain: sa.null(),
        trial.c.repeat_failed: sa.null(),
        session.c.manifest: sa.null(),
    },
}


def readable(column: sa.Column[Any], version: int) -> sa.ColumnElement[Any]:
    """`column`, or what stands for it in a file of an older `version`, under the same name."""
    for since, columns in _NEW.items():
        if version < since and column in columns:
            return columns[column].label(column.name)
    return column


def bring_up_to_date(connection: sa.Connection) -> None:
    """A file of an older version becomes one of VERSION, in the transaction of `connection`: whole or not at all."""
    version = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
    for since, columns in _NEW.items():
        if version >= since:
            continue
        for column in columns:
            definition = sa.schema.CreateColumn(column).compile(dialect=connection.dialect)
            connection.exec_driver_sql(f"ALTER TABLE {column.table.name} ADD COLUMN {definition}")
        if since == 2:
            connection.execute(sa.update(trial).values(seconds=columns[trial.c.seconds]))
            _ONCE.drop(connection)
            _ONCE.create(connection)
    connection.exec_driver_sql(f"PRAGMA user_version={VERSION}")
