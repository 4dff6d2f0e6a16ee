"""Feature pruning: importances, costs, prune plans and their verification."""

from typing import TYPE_CHECKING

from feature_store._lazy import lazy_names

if TYPE_CHECKING:
    from feature_store.pruning.budget import Budget as Budget
    from feature_store.pruning.drawing import draw_curve as draw_curve
    from feature_store.pruning.footprint import Footprint as Footprint
    from feature_store.pruning.importance import FeatureImportance as FeatureImportance, Importances as Importances
    from feature_store.pruning.importance_file import read_importances as read_importances
    from feature_store.pruning.model_importance import importance_from_model as importance_from_model
    from feature_store.pruning.plan import PrunePlan as PrunePlan
    from feature_store.pruning.training import Training as Training
    from feature_store.pruning.verify import Verification as Verification

__getattr__, __dir__ = lazy_names(__name__)
