"""The tables of the ledger, and what older versions of them lack."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from mlpspace.errors import StudyError

VERSION = 4  # of the tables below; where it stands is the storage's business
ENDED = ("complete", "paused", "stopped", "infeasible")  # paused: at a rung, and may go on; stopped: will not
ORIGINS = ("fixed point", "sampler")

WHOLE = sa.Integer().with_variant(sa.BigInteger(), "postgresql")  # SQLite's have 64 bits anyway

tables = sa.MetaData()

architecture = sa.Table(
    "architecture",
    tables,
    sa.Column("id", sa.Text, primary_key=True),  # Architecture.id
    sa.Column("json", sa.Text, nullable=False),
    sa.Column("params", WHOLE, nullable=False),  # the counts are at the resolution of the study's task
    sa.Column("macs", WHOLE, nullable=False),
    sa.Column("tokens", WHOLE, nullable=False),
    sa.Column("activations", WHOLE, nullable=False),
)

trial = sa.Table(
    "trial",
    tables,
    sa.Column("number", WHOLE, primary_key=True, autoincrement=False),  # Optuna's number too
    sa.Column("architecture", sa.ForeignKey("architecture.id"), nullable=False),
    sa.Column("attempt", WHOLE, nullable=False),  # the latest
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("reason", sa.Text),  # a few words that are counted by
    sa.Column("detail", sa.Text),
    sa.Column("origin", sa.Text, nullable=False),
    sa.Column("label", sa.Text),  # of a fixed point: its name and what was changed
    sa.Column("point", sa.Text),  # JSON; null for a fixed point outside the space
    sa.Column("recipe", sa.Text, nullable=False),  # JSON
    sa.Column("seed", WHOLE, nullable=False),
    sa.Column("started", sa.Float, nullable=False),  # seconds since 1970, of the first leg that was not lost
    sa.Column("ended", sa.Float),
    sa.Column("why", sa.Text),  # the sampler chose it
    # a trial that is paused at a rung and goes on later is worked on in several legs
    sa.Column("resumed", sa.Float),  # when its latest leg began
    sa.Column("seconds", sa.Float, nullable=False, server_default="0.0"),  # worked on, in the legs that ended
    sa.Column("deaths", WHOLE, nullable=False, server_default="0"),  # of workers that had it
    sa.Column("gain", sa.Float),  # of hypervolume, expected when it was chosen; null: the sampler did not say
    sa.Column("repeat_failed", sa.Text),  # why it could not be trained anew; null: it could, or nobody tried
)

measurement = sa.Table(
    "measurement",
    tables,
    sa.Column("trial", sa.ForeignKey("trial.number"), nullable=False),
    sa.Column("architecture", sa.ForeignKey("architecture.id"), nullable=False),
    sa.Column("attempt", WHOLE, nullable=False),
    sa.Column("metric", sa.Text, nullable=False),
    sa.Column("rung", WHOLE),  # null, as epochs, for what needs no training
    sa.Column("epochs", WHOLE),
    sa.Column("dataset", sa.Text, nullable=False),
    sa.Column("data", sa.Text),  # fingerprint of its images; null for what needs no training
    sa.Column("resolution", WHOLE, nullable=False),  # pixels
    sa.Column("recipe", sa.Text, nullable=False),  # JSON
    sa.Column("seed", WHOLE, nullable=False),
    sa.Column("protocol", sa.Text, nullable=False),
    sa.Column("device", sa.Text, nullable=False),
    sa.Column("batch", WHOLE, nullable=False),
    sa.Column("precision", sa.Text, nullable=False),
    sa.Column("threads", WHOLE, nullable=False),
    sa.Column("value", sa.Float, nullable=False),
    sa.Column("low", sa.Float, nullable=False),
    sa.Column("high", sa.Float, nullable=False),
    sa.Column("seconds", sa.Float, nullable=False),
    sa.Column("repeat", WHOLE, nullable=False, server_default="0"),  # k: of the k-th training anew
    sa.Column("micro_batch", WHOLE),  # null: the batch fitted
    sa.Column("reference", sa.Float),  # images/s of the reference network; null for what is no throughput
    sa.Column("runtime", sa.Text),
    sa.Column("fingerprint", sa.Text),  # of the device, an id; null for what is not timed
)
# null is unequal to null in an index, so a plain primary key would take the throughput of an attempt twice
ONCE = sa.Index(
    "measurement_once",
    measurement.c.trial,
    measurement.c.attempt,
    measurement.c.metric,
    sa.func.coalesce(measurement.c.rung, sa.literal_column("-1")),
    measurement.c.repeat,
    unique=True,
)

fingerprint = sa.Table(  # few: the circumstances under which something was timed
    "fingerprint",
    tables,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("json", sa.Text, nullable=False),  # `fingerprint.Fingerprint`
)

progress = sa.Table(
    "progress",
    tables,
    sa.Column("trial", sa.ForeignKey("trial.number"), primary_key=True, autoincrement=False),
    sa.Column("attempt", WHOLE, primary_key=True, autoincrement=False),
    sa.Column("epoch", WHOLE, primary_key=True, autoincrement=False),  # finished ones
    sa.Column("loss", sa.Float),
    sa.Column("accuracy", sa.Float),  # %, validation split
)

refused = sa.Table(
    "refused",
    tables,
    sa.Column("reason", sa.Text, primary_key=True),
    sa.Column("count", WHOLE, nullable=False),  # draws that were refused before they became trials
)

session = sa.Table(
    "session",
    tables,
    sa.Column("id", WHOLE, primary_key=True),
    sa.Column("started", sa.Float, nullable=False),  # seconds since 1970
    sa.Column("seen", sa.Float, nullable=False),  # the last time anything was written, so a killed one counts too
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("pid", WHOLE, nullable=False),
    sa.Column("command", sa.Text, nullable=False),
    sa.Column("total", WHOLE),  # trials that it was after
    sa.Column("manifest", sa.Text),  # JSON: versions, machine, devices of this session
    sa.Column("wall_time", sa.Text),  # JSON: where the time of its workers and its driver went; see `wall_time`
)

SINCE = {fingerprint: 4}  # tables that came later -> the version that has them first

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
    4: {
        session.c.wall_time: sa.null(),
        measurement.c.reference: sa.null(),
        measurement.c.runtime: sa.null(),
        measurement.c.fingerprint: sa.null(),
    },
}


def readable(column: sa.Column[Any], version: int) -> sa.ColumnElement[Any]:
    """`column`, or what stands for it in a file of an older `version`, under the same name."""
    for since, columns in _NEW.items():
        if version < since and column in columns:
            return columns[column].label(column.name)
    return column


def refuse_newer(version: int, name: str) -> None:
    """
    Raises:
        StudyError: tables of this version are not for us.
    """
    if version > VERSION:
        raise StudyError(
            f"{name} was written by a newer mlpspace (its tables are version {version}, this one reads up to"
            f" {VERSION}). It is left as it is.\n  To read it: pip install --upgrade mlpspace"
        )


def bring_up_to_date(connection: sa.Connection, version: int) -> None:
    """Tables of an older version become those of VERSION, in the transaction of `connection`: whole or not at all."""
    for since, columns in _NEW.items():
        if version >= since:
            continue
        for column in columns:
            definition = sa.schema.CreateColumn(column).compile(dialect=connection.dialect)
            connection.exec_driver_sql(f"ALTER TABLE {column.table.name} ADD COLUMN {definition}")
        for table in (table for table, first in SINCE.items() if first == since):
            table.create(connection)
        if since == 2:
            connection.execute(sa.update(trial).values(seconds=columns[trial.c.seconds]))
            ONCE.drop(connection)
            ONCE.create(connection)
