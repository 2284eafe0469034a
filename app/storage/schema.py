"""Tables. Alembic migrations in ``migrations/`` create them; a test checks that the two agree.

Embeddings are little-endian float32 bytes: the same on SQLite and PostgreSQL, a third of the size of text.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

BigId = BigInteger().with_variant(Integer(), "sqlite")
"""SQLite numbers rows by itself only for a column of type INTEGER."""


def utc_now() -> datetime:
    """Return the current time with its zone."""
    return datetime.now(UTC)


class Base(DeclarativeBase):
    """Metadata with names for every constraint, so that migrations can refer to them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_N_label)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class CollectionRow(Base):
    """A gallery: identities whose templates one model made."""

    __tablename__ = "collections"
    # Numbers are never reused, or a gallery in memory could take a new collection for a deleted one.
    __table_args__ = ({"sqlite_autoincrement": True},)

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    model_id: Mapped[str] = mapped_column(String(64))
    model_digest: Mapped[str] = mapped_column(String(64))
    policy: Mapped[dict[str, Any]] = mapped_column(JSON)
    revision: Mapped[int] = mapped_column(BigInteger)
    """Rises by one with every committed change of what it holds."""
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=utc_now)
    evidence_id: Mapped[int | None] = mapped_column(BigId)
    """The evidence in force, by its number in ``evidence``; None for the model bundle's own. No foreign key:
    the two tables would refer to each other, and one that is missing must not stop a request anyway."""
    removals_from: Mapped[int] = mapped_column(BigInteger, server_default="0", default=0)
    """Removals up to this revision have been pruned: a gallery that is older cannot follow them."""
    other_model_id: Mapped[str | None] = mapped_column(String(64))
    other_model_digest: Mapped[str | None] = mapped_column(String(64))
    """A second model whose templates are kept too: the one to come, or after the switch the one before."""
    migration: Mapped[str | None] = mapped_column(String(16))
    """``filling`` before the switch to the other model, ``switched`` after it, ``finishing`` while what the
    other has made is removed; None without another."""
    migration_revision: Mapped[int | None] = mapped_column(BigInteger)
    """Revision of the change of model's last step."""


class IdentityRow(Base):
    """One enrolled subject, under the caller's name for it."""

    __tablename__ = "identities"
    __table_args__ = (
        UniqueConstraint("collection_id", "name"),
        Index(None, "collection_id", "revision"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    collection_id: Mapped[int] = mapped_column(ForeignKey("collections.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(String(256))
    details: Mapped[dict[str, Any]] = mapped_column(JSON)
    """The caller's metadata (``metadata`` is a reserved attribute name in SQLAlchemy)."""
    revision: Mapped[int] = mapped_column(BigInteger)
    """The collection's revision at which this identity last changed."""
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=utc_now)
    updated_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=utc_now)


class ReferenceRow(Base):
    """One stored template of an identity. The photo it was made from is not kept."""

    __tablename__ = "reference_templates"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    identity_id: Mapped[int] = mapped_column(ForeignKey("identities.id", ondelete="CASCADE"), index=True)
    model_digest: Mapped[str] = mapped_column(String(64))
    embedding: Mapped[bytes] = mapped_column(LargeBinary)
    face: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    quality: Mapped[dict[str, Any]] = mapped_column(JSON)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=utc_now)
    sample_id: Mapped[str | None] = mapped_column(String(36))
    """The photo it was made from: templates by two models of one photo share it. None is the own id."""


class KeptImageRow(Base):
    """The aligned crop of a photo, where the collection's policy keeps it for a change of model."""

    __tablename__ = "kept_images"

    sample_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    identity_id: Mapped[int] = mapped_column(ForeignKey("identities.id", ondelete="CASCADE"), index=True)
    model_digest: Mapped[str] = mapped_column(String(64))
    """Of the model whose input this is."""
    image: Mapped[bytes] = mapped_column(LargeBinary)
    """PNG of uint8[H, W, C], pixel for pixel what the encoder took; it says itself how it was aligned."""
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=utc_now)


class IdempotencyKeyRow(Base):
    """The answer of a write that its caller may send again."""

    __tablename__ = "idempotency_keys"

    caller: Mapped[str] = mapped_column(String(64), primary_key=True)
    """Id of the API key, or empty without keys: callers do not see one another's answers."""
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    request_sha256: Mapped[str] = mapped_column(String(64))
    status: Mapped[int] = mapped_column(Integer)
    answer: Mapped[bytes] = mapped_column(LargeBinary)
    etag: Mapped[str | None] = mapped_column(String(32))
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=utc_now, index=True)


class ImportRow(Base):
    """How far a file has been imported into a collection; written with the rows themselves."""

    __tablename__ = "imports"
    __table_args__ = (UniqueConstraint("collection_id", "source_sha256"),)

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    collection_id: Mapped[int] = mapped_column(ForeignKey("collections.id", ondelete="CASCADE"))
    source_sha256: Mapped[str] = mapped_column(String(64))
    position: Mapped[int] = mapped_column(BigInteger)
    """Rows of the source that are done with, imported or not."""
    counts: Mapped[dict[str, Any]] = mapped_column(JSON)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=utc_now)
    updated_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=utc_now)


class GallerySnapshotRow(Base):
    """Proof that a snapshot file was written of this very store at a revision.

    A store that was put back from an older backup lacks the row, so the file does not fool it.
    """

    __tablename__ = "gallery_snapshots"

    nonce: Mapped[str] = mapped_column(String(32), primary_key=True)
    collection_id: Mapped[int] = mapped_column(ForeignKey("collections.id", ondelete="CASCADE"), index=True)
    model_digest: Mapped[str] = mapped_column(String(64))
    revision: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=utc_now)


class RemovalRow(Base):
    """That an identity was removed at a revision, so that galleries in memory can follow."""

    __tablename__ = "removals"

    collection_id: Mapped[int] = mapped_column(
        ForeignKey("collections.id", ondelete="CASCADE"), primary_key=True
    )
    revision: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    identity_id: Mapped[int] = mapped_column(BigInteger)


class EvidenceRow(Base):
    """Trials that were measured on a collection's own people."""

    __tablename__ = "evidence"
    # Numbers are never reused: processes remember the trials by them.
    __table_args__ = ({"sqlite_autoincrement": True},)

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    collection_id: Mapped[int] = mapped_column(ForeignKey("collections.id", ondelete="CASCADE"), index=True)
    model_digest: Mapped[str] = mapped_column(String(64))
    revision: Mapped[int] = mapped_column(BigInteger)
    """The collection's revision whose references were compared."""
    description: Mapped[str] = mapped_column(Text)
    subjects: Mapped[int] = mapped_column(Integer)
    images: Mapped[int] = mapped_column(Integer)
    mated: Mapped[int] = mapped_column(BigInteger)
    nonmated: Mapped[int] = mapped_column(BigInteger)
    trials: Mapped[bytes] = mapped_column(LargeBinary)
    """The arrays of ``app.matching.evidence``, as npz."""
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=utc_now)


class ApiKeyRow(Base):
    """An API key. Only the SHA-256 of its random secret is kept."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    secret_sha256: Mapped[str] = mapped_column(String(64))
    role: Mapped[str] = mapped_column(String(16))
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=utc_now)
    revoked_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
