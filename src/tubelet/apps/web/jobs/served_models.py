"""The models that a server can ask: those that it was started with, and the page's own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from tubelet.apps.web.jobs.own_models import MOST, OwnModel, check_name
from tubelet.apps.web.jobs.store import Store
from tubelet.apps.web.jobs.worker import Message
from tubelet.apps.web.users import User
from tubelet.core.errors import InputError


class ServedModels:
    """What the server knows of its models. Guarded by the queue's lock where it is changed.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from tubelet.apps.web.jobs.served_models import ServedModels
        >>> from tubelet.apps.web.jobs.store import Store
        >>> from tubelet.apps.web.users import EVERYONE
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     store = Store(Path(folder))
        ...     models = ServedModels(store, ["default"])
        ...     models.described = [{"name": "default"}, {"name": "Ann/Geese"}]
        ...     models.of(EVERYONE)
        ...     store.close()
        [{'name': 'default'}]
    """

    def __init__(self, store: Store, names: Sequence[str]) -> None:
        self._own = store.models
        self._trainings = store.trainings
        self.started_with = names
        self.described: list[Message] = []  # those that are loaded, as the worker describes them

    def of(self, user: User) -> list[Message]:
        """The models that a user may ask: those that the server was started with, and the user's own."""
        own = {model.name for model in self._own.all() if user.sees(model.owner)}
        return [model for model in self.described if model["name"] in own or model["name"] in self.started_with]

    def find(self, user: User, name: str) -> Message | None:
        """The model of this name, if a user may ask it."""
        return next((model for model in self.of(user) if model["name"] == name), None)

    def names(self) -> list[str]:
        """The names of all models, loaded or not."""
        return [*self.started_with, *(model.name for model in self._own.all())]

    def source(self, name: str) -> str:
        """What a model is loaded from: its file if it is one of the page's own, else its name."""
        own = next((model for model in self._own.all() if model.name == name), None)
        return name if own is None else str(self._own.path(own.id))

    def own_files(self) -> dict[str, str]:
        """The files of the page's own models, by name."""
        return {model.name: str(self._own.path(model.id)) for model in self._own.all()}

    def not_loaded(self) -> Iterator[tuple[str, str]]:
        """Names and files of the page's own models that the worker has not described yet."""
        loaded = [model["name"] for model in self.described]
        return ((name, path) for name, path in self.own_files().items() if name not in loaded)

    def check_new(self, name: str, user: User) -> None:
        """Raise InputError unless a new model of a user can have this name, which is qualified."""
        pending = [other.name for other in self._trainings.all() if other.state != "done"]
        check_name(name, user.name, [*self.names(), *pending])
        if sum(model.owner == user.name for model in self._own.all()) >= MOST:
            raise InputError(f"there are {MOST} models of your own already; remove one first")

    def add(self, model: OwnModel, path: Path, description: Message) -> None:
        """Add a model that the worker has loaded from `path`, which is moved."""
        self._own.add(model, path)
        self.described.append(description)

    def remove(self, model: OwnModel) -> None:
        """Remove a model of the page's own; results that it has given stay."""
        self._own.remove(model.id)
        self.described = [other for other in self.described if other["name"] != model.name]
