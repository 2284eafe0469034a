"""galleries at scale: retried writes, imports, snapshots, pruned removals, a second model

Revision: 0003
Follows: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    # Nullable or with a constant default, so that neither store rewrites a row.
    op.add_column(
        "collections", sa.Column("removals_from", sa.BigInteger(), nullable=False, server_default="0")
    )
    op.add_column("collections", sa.Column("other_model_id", sa.String(length=64), nullable=True))
    op.add_column("collections", sa.Column("other_model_digest", sa.String(length=64), nullable=True))
    op.add_column("collections", sa.Column("migration", sa.String(length=16), nullable=True))
    op.add_column("collections", sa.Column("migration_revision", sa.BigInteger(), nullable=True))
    op.add_column("reference_templates", sa.Column("sample_id", sa.String(length=36), nullable=True))
    op.create_table(
        "kept_images",
        sa.Column("sample_id", sa.String(length=36), nullable=False),
        sa.Column("identity_id", _NUMBER, nullable=False),
        sa.Column("model_digest", sa.String(length=64), nullable=False),
        sa.Column("image", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["identity_id"],
            ["identities.id"],
            name=op.f("fk_kept_images_identity_id_identities"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("sample_id", name=op.f("pk_kept_images")),
    )
    op.create_index(op.f("ix_kept_images_identity_id"), "kept_images", ["identity_id"], unique=False)
    op.create_table(
        "idempotency_keys",
        sa.Column("caller", sa.String(length=64), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("request_sha256", sa.String(length=64), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("answer", sa.LargeBinary(), nullable=False),
        sa.Column("etag", sa.String(length=32), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("caller", "key", name=op.f("pk_idempotency_keys")),
    )
    op.create_index(op.f("ix_idempotency_keys_created_at"), "idempotency_keys", ["created_at"], unique=False)
    op.create_table(
        "imports",
        sa.Column("id", _NUMBER, autoincrement=True, nullable=False),
        sa.Column("collection_id", _NUMBER, nullable=False),
        sa.Column("source_sha256", sa.String(length=64), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("counts", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["collection_id"],
            ["collections.id"],
            name=op.f("fk_imports_collection_id_collections"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_imports")),
        sa.UniqueConstraint(
            "collection_id", "source_sha256", name=op.f("uq_imports_collection_id_source_sha256")
        ),
    )
    op.create_table(
        "gallery_snapshots",
        sa.Column("nonce", sa.String(length=32), nullable=False),
        sa.Column("collection_id", _NUMBER, nullable=False),
        sa.Column("model_digest", sa.String(length=64), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["collection_id"],
            ["collections.id"],
            name=op.f("fk_gallery_snapshots_collection_id_collections"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("nonce", name=op.f("pk_gallery_snapshots")),
    )
    op.create_index(
        op.f("ix_gallery_snapshots_collection_id"), "gallery_snapshots", ["collection_id"], unique=False
    )


def downgrade() -> None:
    op.drop_table("gallery_snapshots")
    op.drop_table("imports")
    op.drop_table("idempotency_keys")
    op.drop_table("kept_images")
    op.drop_column("reference_templates", "sample_id")
    for name in ("migration_revision", "migration", "other_model_digest", "other_model_id", "removals_from"):
        op.drop_column("collections", name)
