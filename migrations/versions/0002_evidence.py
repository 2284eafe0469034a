"""evidence of a collection's own people

Revision: 0002
Follows: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "evidence",
        sa.Column("id", _NUMBER, autoincrement=True, nullable=False),
        sa.Column("collection_id", _NUMBER, nullable=False),
        sa.Column("model_digest", sa.String(length=64), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("subjects", sa.Integer(), nullable=False),
        sa.Column("images", sa.Integer(), nullable=False),
        sa.Column("mated", sa.BigInteger(), nullable=False),
        sa.Column("nonmated", sa.BigInteger(), nullable=False),
        sa.Column("trials", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["collection_id"],
            ["collections.id"],
            name=op.f("fk_evidence_collection_id_collections"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_evidence")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_evidence_collection_id"), "evidence", ["collection_id"], unique=False)
    # Nullable and without a default, so that neither store touches a row.
    op.add_column("collections", sa.Column("evidence_id", _NUMBER, nullable=True))


def downgrade() -> None:
    op.drop_column("collections", "evidence_id")
    op.drop_index(op.f("ix_evidence_collection_id"), table_name="evidence")
    op.drop_table("evidence")
