"""The models this process serves."""

from __future__ import annotations

from collections.abc import Sequence

from app.encoding.model import Model
from app.errors import ModelMismatchError, ModelNotFoundError
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
