"""The models this process serves."""

from __future__ import annotations

from collections.abc import Sequence

from app.encoding.model import Model
from app.errors import ModelMismatchError, ModelNotFoundError, ModelNotServedError
from app.storage.records import Collection


class Models:
    """Served models by id; the first is the default."""

    def __init__(self, models: Sequence[Model]) -> None:
        self._models = {model.model_id: model for model in models}
        self.default = models[0]

    def every(self) -> list[Model]:
        """Return all, default first."""
        return list(self._models.values())

    def get(self, model_id: str | None) -> Model:
        """Return a model by id, or the default for None.

        Raises:
            ModelNotFoundError: It is not served here.
        """
        if model_id is None:
            return self.default
        try:
            return self._models[model_id]
        except KeyError:
            raise ModelNotFoundError(model_id, list(self._models)) from None

    def of_collection(self, collection: Collection, asked: str | None = None) -> Model:
        """Return the model whose templates a collection holds.

        Raises:
            ModelNotFoundError: The model asked for is not served here.
            ModelMismatchError: The collection was made by another model, or another build of it.
        """
        if asked is not None and self.get(asked).model_id != collection.model_id:
            raise ModelMismatchError(
                collection=collection.name, bound=collection.model_id, other=f"model {asked}"
            )
        model = self._models.get(collection.model_id)
        if model is None:
            raise ModelMismatchError(
                collection=collection.name,
                bound=collection.model_id,
                other=f"the models served here ({', '.join(self._models)})",
            )
        if model.digest != collection.model_digest:
            raise ModelMismatchError(
                collection=collection.name,
                bound=f"{collection.model_id} ({collection.model_digest[:12]})",
                other=f"the {model.model_id} served here ({model.digest[:12]})",
            )
        return model

    def of_digest(self, digest: str | None) -> Model | None:
        """Return the model that makes templates of a digest; None where it is not served here."""
        return next((model for model in self._models.values() if model.digest == digest), None)

    def of_enrolment(self, collection: Collection) -> list[Model]:
        """Return the models that make templates of a new photo, the collection's own first.

        Raises:
            ModelMismatchError: The collection's own is not served here.
            ModelNotServedError: During a change of model, the second is not.
        """
        models = [self.of_collection(collection)]
        for digest in collection.digests[1:]:
            second = self.of_digest(digest)
            if second is None:
                raise ModelNotServedError(collection=collection.name, model=str(collection.model_of(digest)))
            models.append(second)
        return models
