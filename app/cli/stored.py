"""``visavis identities | collections | models | keys | db``: what is stored and served."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click

from app import answers
from app.cli.bulk import export_identities, import_identities
from app.cli.common import (
    F,
    FiniteRange,
    as_json_option,
    collection_option,
    database_option,
    given,
    models_dir_option,
    print_json,
    run,
)
from app.cli.migration import migrate_collection
from app.cli.vectors import vectors as vector_commands
from app.context import open_context, open_database, opened_database
from app.encoding.bundle import Bundle, load_bundle, read_manifest
from app.encoding.golden import GOLDEN_TOLERANCE
from app.encoding.manifest import MANIFEST_NAME
from app.encoding.seal import SEAL_NAME, SIGNATURE_NAME
from app.encoding.signature import Signature, make_key, read_trusted_keys, sign_bundle
from app.services.access import Role, create_key, list_keys, revoke_key
from app.services.catalogue import CollectionPolicy
from app.services.names import collection_name, identity_name
from app.settings import load_settings
from app.storage import migrate, vectors
from app.storage.database import Database


@click.group()
def identities() -> None:
    """List, show, delete, import and export identities."""


identities.add_command(import_identities)
identities.add_command(export_identities)


@identities.command("list")
@collection_option
@click.option(
    "--limit", type=click.IntRange(1, 100_000), default=1000, show_default=True, help="Most to list."
)
@database_option
@models_dir_option
@as_json_option
def list_identities(collection: str, limit: int, as_json: bool, **store: Any) -> None:  # noqa: ANN401
    """List identities in order of enrolment."""
    with open_context(load_settings(**given(**store)), existing=True) as context:
        found = run(context.catalogue.identities(collection_name(collection), after=0, limit=limit))
    views = [answers.identity_view(identity, collection) for identity in found.identities]
    if as_json:
        print_json([view.model_dump(mode="json") for view in views])
        return
    for view in views:
        click.echo(f"{view.identity}  enrolled {view.created_at:%Y-%m-%d %H:%M}  {view.metadata or ''}")


@identities.command("show")
@click.argument("identity")
@collection_option
@database_option
@models_dir_option
def show_identity(identity: str, collection: str, **store: Any) -> None:  # noqa: ANN401
    """Show one identity as JSON."""
    with open_context(load_settings(**given(**store)), existing=True) as context:
        found = run(context.catalogue.identity(collection_name(collection), identity_name(identity)))
    print_json(answers.identity_view(found, collection).model_dump(mode="json"))


@identities.command("rename")
@click.argument("identity")
@click.argument("new_name")
@collection_option
@database_option
@models_dir_option
def rename_identity(identity: str, new_name: str, collection: str, **store: Any) -> None:  # noqa: ANN401
    """Give an identity another name."""
    with open_context(load_settings(**given(**store)), existing=True) as context:
        run(
            context.catalogue.change_identity(
                collection_name(collection),
                identity_name(identity),
                new_name=identity_name(new_name, field="new_name"),
                metadata=None,
            )
        )
    click.echo(f"renamed {identity} to {new_name} in {collection}")


@identities.command("delete")
@click.argument("identity")
@collection_option
@database_option
@models_dir_option
def delete_identity(identity: str, collection: str, **store: Any) -> None:  # noqa: ANN401
    """Delete an identity and its templates."""
    with open_context(load_settings(**given(**store)), existing=True) as context:
        run(context.catalogue.delete_identity(collection_name(collection), identity_name(identity)))
    click.echo(f"deleted {identity} from {collection}")


@identities.command("references")
@click.argument("identity")
@collection_option
@database_option
@models_dir_option
@as_json_option
def list_references(identity: str, collection: str, as_json: bool, **store: Any) -> None:  # noqa: ANN401
    """List an identity's references, oldest first."""
    with open_context(load_settings(**given(**store)), existing=True) as context:
        found = run(context.catalogue.references(collection_name(collection), identity_name(identity)))
    answer = answers.reference_list(found)
    if as_json:
        print_json(answer.model_dump(mode="json"))
        return
    for one in answer.references:
        click.echo(
            f"{one.id}  {one.model or one.model_digest[:12]}, enrolled {one.created_at:%Y-%m-%d %H:%M}"
        )


@identities.command("delete-reference")
@click.argument("identity")
@click.argument("reference_id")
@collection_option
@database_option
@models_dir_option
def delete_reference(identity: str, reference_id: str, collection: str, **store: Any) -> None:  # noqa: ANN401
    """Remove one reference of an identity that has several."""
    name = identity_name(identity)
    with open_context(load_settings(**given(**store)), existing=True) as context:
        run(context.catalogue.delete_reference(collection_name(collection), name, reference_id))
    click.echo(f"removed reference {reference_id} of {identity} from {collection}")


@click.group()
def collections() -> None:
    """List, create, change, migrate and delete collections."""


@collections.command("list")
@database_option
@models_dir_option
@as_json_option
def list_collections(as_json: bool, **store: Any) -> None:  # noqa: ANN401
    """List collections in order of creation."""
    with open_context(load_settings(**given(**store)), existing=True) as context:
        found = run(context.catalogue.collections(after=0, limit=100_000))
    views = [answers.collection_view(view) for view in found]
    if as_json:
        print_json([view.model_dump(mode="json") for view in views])
        return
    for view in views:
        click.echo(f"{view.name}  model {view.model}, {view.identities} identities, revision {view.revision}")


@collections.command("show")
@click.argument("name")
@database_option
@models_dir_option
def show_collection(name: str, **store: Any) -> None:  # noqa: ANN401
    """Show one collection as JSON."""
    with open_context(load_settings(**given(**store)), existing=True) as context:
        found = run(context.catalogue.collection(collection_name(name)))
    print_json(answers.collection_view(found).model_dump(mode="json"))


_POLICY: Final = (
    click.option("--min-face-size", type=FiniteRange(0, 1e6), help="Floor at enrolment, pixels."),
    click.option("--min-sharpness", type=FiniteRange(0, 1e6), help="Floor of sharpness at enrolment."),
    click.option("--min-brightness", type=FiniteRange(0, 1), help="Floor of brightness at enrolment."),
    click.option("--max-brightness", type=FiniteRange(0, 1), help="Ceiling of brightness at enrolment."),
    click.option("--max-yaw", type=FiniteRange(0, 100), help="Ceiling of |quality.yaw| at enrolment."),
    click.option(
        "--max-references", type=click.IntRange(1, 64), help="Most references of one identity.  [default: 1]"
    ),
    click.option(
        "--keep-images",
        type=click.Choice(["none", "aligned"]),
        help="Keep the aligned crop of each photo for a change of model.  [default: none]",
    ),
    click.option(
        "--migrate-on-verify/--no-migrate-on-verify",
        default=None,
        help="In a change of model, take a photo that verifies as the missing reference.  [default: take it]",
    ),
)


def policy_options(command: F) -> F:
    """Add an option for each part of a collection's policy."""
    for option in reversed(_POLICY):
        command = option(command)
    return command


@collections.command("create")
@click.argument("name")
@click.option("--model", help="Model to bind it to.  [default: the first of VISAVIS_MODELS]")
@policy_options
@database_option
@models_dir_option
def create_collection(
    name: str,
    model: str | None,
    database_url: str | None,
    models_dir: Path | None,
    **policy: Any,  # noqa: ANN401 - each part has its own type
) -> None:
    """Create a collection, bound to one model until it is migrated."""
    settings = load_settings(**given(database_url=database_url, models_dir=models_dir))
    with open_context(settings) as context:
        made = run(
            context.catalogue.create_collection(
                collection_name(name), model, CollectionPolicy.model_validate(given(**policy))
            )
        )
    click.echo(f"created {name}, model {made.collection.model_id}")


@collections.command("change")
@click.argument("name")
@policy_options
@database_option
@models_dir_option
def change_collection(
    name: str,
    database_url: str | None,
    models_dir: Path | None,
    **policy: Any,  # noqa: ANN401 - each part has its own type
) -> None:
    """Change parts of a collection's policy, for photos to come. Crops no longer kept are deleted."""
    changes = given(**policy)
    if not changes:
        raise click.UsageError("give an option of the policy")
    settings = load_settings(**given(database_url=database_url, models_dir=models_dir))
    with open_context(settings, existing=True) as context:
        found = run(context.catalogue.collection(collection_name(name))).collection
        changed = CollectionPolicy.model_validate({**found.policy, **changes})
        run(context.catalogue.change_policy(found.name, changed))
    click.echo(f"changed {name}: {', '.join(f'{part} {value}' for part, value in changes.items())}")


collections.add_command(migrate_collection)


@collections.command("delete")
@click.argument("name")
@click.confirmation_option(prompt="Delete the collection with every identity in it?")
@database_option
@models_dir_option
def delete_collection(name: str, **store: Any) -> None:  # noqa: ANN401
    """Delete a collection with every identity in it."""
    with open_context(load_settings(**given(**store)), existing=True) as context:
        run(context.catalogue.delete_collection(collection_name(name)))
    click.echo(f"deleted {name}")


@click.group()
def models() -> None:
    """List, show, check and sign model bundles."""


@models.command("list")
@models_dir_option
@as_json_option
def list_models(models_dir: Path | None, as_json: bool) -> None:
    """List the bundles in the models folder."""
    folder = load_settings(**given(models_dir=models_dir)).models_dir
    manifests = [read_manifest(path.parent) for path in sorted(folder.glob(f"*/{MANIFEST_NAME}"))]
    if as_json:
        print_json([manifest.model_dump(mode="json") for manifest in manifests])
        return
    for manifest in manifests:
        click.echo(f"{manifest.model_id}  {manifest.version}  {manifest.description}")


@models.command("show")
@click.argument("model_id")
@models_dir_option
def show_model(model_id: str, models_dir: Path | None) -> None:
    """Show a bundle's manifest as JSON."""
    folder = load_settings(**given(models_dir=models_dir)).models_dir
    manifest = read_manifest(folder / model_id)
    print_json({"digest": manifest.digest, **manifest.model_dump(mode="json")})


bundle_argument = click.argument("path", type=click.Path(path_type=Path, exists=True, file_okay=False))


@models.command("verify")
@bundle_argument
@click.option(
    "--trusted-keys",
    type=click.Path(path_type=Path),
    help="File of public keys, one of which must have signed it.  [default: VISAVIS_TRUSTED_KEYS, else none]",
)
@as_json_option
def verify_model(path: Path, trusted_keys: Path | None, as_json: bool) -> None:
    """Check the bundle at PATH as the service does at start, and say what was checked.

    Seal, signature, shapes, golden embeddings and decisions, evidence. The first thing that is wrong ends it,
    by the name of the file, with exit code 1.
    """
    settings = load_settings(**given(trusted_keys=trusted_keys))
    trusted = None if settings.trusted_keys is None else read_trusted_keys(settings.trusted_keys)
    bundle = load_bundle(path.resolve(), settings.provider, trusted)
    view = _bundle_view(bundle)
    if as_json:
        print_json(view)
        return
    manifest, golden = bundle.manifest, bundle.golden
    click.echo(f"{manifest.model_id} is sound: {len(manifest.files)} files, digest {manifest.digest}")
    click.echo(
        f"seal       {len(manifest.files) + 1} files are as {SEAL_NAME} lists them, and no other is there"
    )
    click.echo(f"signature  {_signature_text(bundle.signature, settings.trusted_keys)}")
    click.echo(f"graphs     {', '.join(view['graphs'])} on {golden.provider}")
    click.echo(
        f"golden     {golden.images} embeddings, none off by more than {golden.largest_difference:.2g} "
        f"({GOLDEN_TOLERANCE:g} is allowed)"
    )
    click.echo(
        f"decisions  {golden.decisions} on {golden.pairs} pairs are the reference's, no distance off by more "
        f"than {golden.largest_distance_difference:.2g}"
    )
    click.echo(
        f"evidence   {manifest.evidence.subjects} subjects, {manifest.evidence.mated} mated and "
        f"{manifest.evidence.nonmated} non-mated trials"
    )


def _bundle_view(bundle: Bundle) -> dict[str, Any]:
    manifest, signature, golden = bundle.manifest, bundle.signature, bundle.golden
    return {
        "model": manifest.model_id,
        "sound": True,
        "digest": manifest.digest,
        "files": sorted([*manifest.files, MANIFEST_NAME]),
        "signature": signature and {"key_id": signature.key_id, "trusted": signature.trusted},
        "provider": golden.provider,
        "graphs": ["encoder.onnx", *([manifest.detector.file] if manifest.detector else [])],
        "golden": {
            "images": golden.images,
            "largest_difference": golden.largest_difference,
            "allowed": GOLDEN_TOLERANCE,
            "pairs": golden.pairs,
            "decisions": golden.decisions,
            "largest_distance_difference": golden.largest_distance_difference,
        },
        "evidence": {
            "subjects": manifest.evidence.subjects,
            "mated": manifest.evidence.mated,
            "nonmated": manifest.evidence.nonmated,
        },
    }


def _signature_text(signature: Signature | None, trusted_keys: Path | None) -> str:
    if signature is None:
        return "none, and none is asked for"
    asked = "whose it is was not asked" if trusted_keys is None else f"trusted by {trusted_keys}"
    return f"by key {signature.key_id}, {asked}"


@models.command("sign")
@bundle_argument
@click.option(
    "--key",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    required=True,
    help="Ed25519 private key in PEM, as 'keygen' writes it.",
)
def sign_model(path: Path, key: Path) -> None:
    """Sign the seal of the bundle at PATH, which must be as the seal says."""
    folder = path.resolve()
    signer = sign_bundle(folder, key)
    click.echo(f"{folder.name} is signed by key {signer}: {path / SIGNATURE_NAME}")


@models.command("keygen")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="New file for the private key.")
def keygen(out: Path) -> None:
    """Make a key to sign bundles with, and print its public key.

    The public key, one line of base64, is what the file that VISAVIS_TRUSTED_KEYS names holds.
    """
    click.echo(make_key(out))
    click.echo(f"the private key is in {out}, readable by its owner only", err=True)


@click.group()
def keys() -> None:
    """Create, list and revoke API keys."""


@keys.command("create")
@click.argument("name")
@click.option(
    "--role",
    type=click.Choice(["full", "match"]),
    default="full",
    show_default=True,
    help="match: verify, identify, embed, detect and read only.",
)
@database_option
def create(name: str, role: Role, database_url: str | None) -> None:
    """Make a key and print it; it cannot be shown again."""
    with _migrated(database_url, existing=False) as database:
        click.echo(create_key(database, name, role))
        click.echo(f"kept in {database.name}; it cannot be shown again", err=True)


@keys.command("list")
@database_option
@as_json_option
def list_all(database_url: str | None, as_json: bool) -> None:
    """List keys without their secrets."""
    with _migrated(database_url) as database:
        found = list_keys(database)
    if as_json:
        print_json([{k: v for k, v in vars(key).items() if k != "secret_sha256"} for key in found])
        return
    for key in found:
        state = f"revoked {key.revoked_at:%Y-%m-%d}" if key.revoked_at else "valid"
        click.echo(f"{key.name}  role {key.role}, made {key.created_at:%Y-%m-%d}, {state}")


@keys.command("revoke")
@click.argument("name")
@database_option
def revoke(name: str, database_url: str | None) -> None:
    """Refuse a key from now on."""
    with _migrated(database_url) as database:
        revoke_key(database, name)
    click.echo(f"revoked {name}")


@click.group()
def db() -> None:
    """Bring the database schema up to date."""


db.add_command(vector_commands)


@db.command("upgrade")
@database_option
def upgrade(database_url: str | None) -> None:
    """Apply every migration that is missing; with VISAVIS_SEARCH=pgvector also make the tables of vectors."""
    settings = load_settings(**given(database_url=database_url))
    database = open_database(settings)
    try:
        database.make_file()
        before, head = migrate.current_and_head(database)
        migrate.upgrade(database)
        if settings.search == "pgvector":
            with migrate.explained(database):
                vectors.install(database)
    finally:
        database.close()
    click.echo(f"schema at {head}" + ("" if before == head else f" (was {before or 'empty'})"))


@contextmanager
def _migrated(database_url: str | None, *, existing: bool = True) -> Iterator[Database]:
    settings = load_settings(**given(database_url=database_url))
    with opened_database(settings, existing=existing) as database:
        yield database
