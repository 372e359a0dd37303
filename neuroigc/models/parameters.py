"""scikit-learn's manners without its import, which loads pandas wherever that is installed."""

from __future__ import annotations

import inspect

from neuroigc._validation import check_choice

__all__ = ["Parametrised"]


class Parametrised:
    """An estimator whose parameters are the arguments of ``__init__``, kept under their names.

    That is all `sklearn.base.clone`, cross-validation and grid search ask for.
    """

    _estimator_type: str  # "regressor" or "classifier"

    @classmethod
    def _parameter_names(cls):
        return sorted(set(inspect.signature(cls.__init__).parameters) - {"self"})

    def _keep(self, arguments):
        """Keep the arguments of ``__init__``, given as its ``locals()``."""
        for name in self._parameter_names():
            setattr(self, name, arguments[name])

    def get_params(self, deep=True):  # noqa: ARG002 - no parameter is itself an estimator
        """Return the parameters by name."""
        return {name: getattr(self, name) for name in self._parameter_names()}

    def set_params(self, **parameters):
        """Change parameters and return the estimator.

        Raises
        ------
        InputError
            If there is no parameter of that name.
        """
        for name, value in parameters.items():
            check_choice("parameter", name, self._parameter_names())
            setattr(self, name, value)
        return self

    def __repr__(self):
        defaults = inspect.signature(type(self).__init__).parameters
        changed = [
            f"{name}={value!r}"
            for name, value in self.get_params().items()
            if value != defaults[name].default
        ]
        return f"{type(self).__name__}({', '.join(changed)})"

    def __sklearn_tags__(self):
        from sklearn.utils import ClassifierTags, RegressorTags, Tags, TargetTags

        is_classifier = self._estimator_type == "classifier"
        return Tags(
            estimator_type=self._estimator_type,
            target_tags=TargetTags(required=True, multi_output=not is_classifier),
            classifier_tags=ClassifierTags() if is_classifier else None,
            regressor_tags=None if is_classifier else RegressorTags(),
        )

    def __sklearn_is_fitted__(self):
        return hasattr(self, "module_")

    def _check_fitted(self):
        if not self.__sklearn_is_fitted__():
            from sklearn.exceptions import NotFittedError

            raise NotFittedError(f"This {type(self).__name__} is not fitted yet; call fit first.")
