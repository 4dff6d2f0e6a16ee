"""Whether a service serves what a model was made for: the same features in their order, under the same prune plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from feature_store.errors import ModelMismatchError
from feature_store.online.matrix import bracketed_columns, matrix_columns

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from feature_store.definitions.dtypes import DType

_REFIT = "serve the model that was fitted for this plan; or roll the plan back (`feature-store prune rollback`)"
_NAMED = 5  # missing or additional features that an error names


class ModelMatch:
    """The names under which a model may know the features of a service.

    Args:
        where: the service, for errors.
        types: the type of each column by name.
        prune_plan: the id of the prune plan that the service is served under; empty for none.

    Attributes:
        matrix_columns: the names of the matrix's columns.
    """

    def __init__(self, where: str, types: Mapping[str, DType], prune_plan: str) -> None:
        self._where, self._prune_plan = where, prune_plan
        self._names, self.matrix_columns = list(types), matrix_columns(types)
        self._bracketed = bracketed_columns(types)

    def fits(self, model_features: Sequence[str] | None, prune_plan: str | None) -> bool:
        """Whether the service serves what a model was made for.

        Args:
            model_features: the names of the model's features in order, or of its matrix's columns. The columns of
                arrays may be written `name_0` or `name[0]`. None: any features fit.
            prune_plan: the id of the prune plan that the model was made for; empty for none. None: any prune plan fits.
        """
        return prune_plan in (None, self._prune_plan) and (
            model_features is None or list(model_features) in (self._names, self.matrix_columns, self._bracketed)
        )

    def refuse_unless_fits(self, model_features: Sequence[str] | None, prune_plan: str | None) -> None:
        """Check that the service serves what a model was made for.

        Raises:
            ModelMismatchError: `fits` is False.
        """
        if self.fits(model_features, prune_plan):
            return
        if prune_plan not in (None, self._prune_plan):
            expected, got = f"prune plan {prune_plan or 'none'}, as the model", self._prune_plan or "none"
        else:
            expected, got = "the model's features, in their order", self._difference(model_features or ())
        raise ModelMismatchError(self._where, expected=expected, got=got, hint=_REFIT)

    def _difference(self, model_features: Sequence[str]) -> str:
        known = {*self._names, *self.matrix_columns, *self._bracketed}
        missing = [name for name in model_features if name not in known]
        additional = [name for name in self._names if name not in model_features]
        differences = [
            f"{what} {', '.join(names[:_NAMED])}" + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
            for what, names in (("without", missing), ("with", additional))
            if names
        ]
        under = f"; prune plan {self._prune_plan} is applied" if self._prune_plan else ""
        return (" and ".join(differences) or "another order") + under
