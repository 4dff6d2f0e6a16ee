"""What a grocer's recommender is served: one household and the categories that it may buy from in the coming week.

The data are those of The Complete Journey (84.51°, 2017): see tables.py. All windows end with the week before.
With ROW_GROUPS=view in the environment each view has entities of its own, and so a row group and keys of its own, as if
every team stored its features by itself; else all views of an entity share a row.
"""

from __future__ import annotations

import os
from datetime import timedelta

import numpy as np

from feature_store import (
    Aggregation,
    Bool,
    Entity,
    FeatureService,
    FeatureView,
    Field,
    Float32,
    Int32,
    Int64,
    ParquetSource,
    RequestSource,
    on_demand_feature_view,
)

OF_EACH_VIEW = os.environ.get("ROW_GROUPS") == "view"
TIME = "event_timestamp"

WEEK = timedelta(weeks=1)
SHORT, LONG = [WEEK, 4 * WEEK], [WEEK, 4 * WEEK, 16 * WEEK]
ALL = [WEEK, 2 * WEEK, 4 * WEEK, 8 * WEEK, 16 * WEEK]
DAY = timedelta(days=1)

HOUSEHOLD, CATEGORY, DEPARTMENT, STORE = "household", "category", "department", "store"
DEPARTMENTS = ("grocery", "drug_gm", "produce", "meat_pckgd", "meat", "deli", "pastry", "nutrition")


def entities(view: str, *names: str) -> list[Entity]:
    """The entities of a view."""
    return [Entity(f"{name}_of_{view}" if OF_EACH_VIEW else name, join_key=f"{name}_id", dtype=Int64) for name in names]


def events(file: str, *fields: Field) -> ParquetSource:
    """A table of events."""
    return ParquetSource(f"data/{file}.parquet", event_timestamp=TIME, schema=fields)


def over(column: str, function: str, windows: list[timedelta], name: str, only: str | None = None) -> Aggregation:
    """A function of events over windows that slide by a day."""
    return Aggregation(column, function, windows=windows, name=name, filter=only, hop=DAY)


KEYS = {name: Field(f"{name}_id", Int64) for name in (HOUSEHOLD, CATEGORY, DEPARTMENT, STORE)}
LINES = events(
    "lines",
    *KEYS.values(),
    *(Field(name, Float32) for name in ("sales", "quantity", "retail_discount", "coupon_discount")),
    *(Field(name, Bool) for name in ("private", "morning", "evening", "weekend")),
    Field("day", Int32),
)
BASKETS = events("baskets", KEYS[HOUSEHOLD], KEYS[STORE], Field("sales", Float32), Field("lines", Int32))
WEEKS = events("weeks", KEYS[HOUSEHOLD], KEYS[CATEGORY], Field("sales", Float32))
CAMPAIGNS = events("campaigns", KEYS[HOUSEHOLD], Field("kind", Int32))
REDEMPTIONS = events("redemptions", KEYS[HOUSEHOLD], Field("campaign", Int32))


def windows(view: str, source: ParquetSource, names: tuple[str, ...], *aggregations: Aggregation) -> FeatureView:
    """A view of windows over events."""
    return FeatureView(view, entities=entities(view, *names), source=source, aggregations=aggregations)


household_spend = windows(
    "household_spend",
    LINES,
    (HOUSEHOLD,),
    over("sales", "sum", ALL, "household_sales"),
    over("sales", "mean", LONG, "household_price"),
    over("sales", "max", LONG, "household_dearest"),
    over("quantity", "sum", ALL, "household_quantity"),
)
household_visits = windows(
    "household_visits",
    BASKETS,
    (HOUSEHOLD,),
    over("sales", "count", ALL, "household_baskets"),
    over("sales", "mean", LONG, "household_basket_sales"),
    over("lines", "mean", LONG, "household_basket_lines"),
    over("lines", "max", LONG, "household_largest_basket"),
)
household_discounts = windows(
    "household_discounts",
    LINES,
    (HOUSEHOLD,),
    over("retail_discount", "sum", ALL, "household_retail_discount"),
    over("coupon_discount", "sum", ALL, "household_coupon_discount"),
)
household_brands = windows(
    "household_brands",
    LINES,
    (HOUSEHOLD,),
    over("day", "count", ALL, "household_lines"),
    over("day", "count", ALL, "household_private_lines", "private == True"),
)
household_hours = windows(
    "household_hours",
    LINES,
    (HOUSEHOLD,),
    *(
        over("day", "count", LONG, f"household_{when}_lines", f"{when} == True")
        for when in ("morning", "evening", "weekend")
    ),
)
household_departments = windows(
    "household_departments",
    LINES,
    (HOUSEHOLD,),
    *(
        over("day", "count", [4 * WEEK, 16 * WEEK], f"household_{name}_lines", f"department_id == {number}")
        for number, name in enumerate(DEPARTMENTS)
    ),
)
household_profile = FeatureView(
    "household_profile",
    entities=entities("household_profile", HOUSEHOLD),
    source=ParquetSource("data/demographics.parquet", event_timestamp=TIME),
    schema=[
        Field(name, Int32)
        for name in ("age_band", "income_band", "is_owner", "is_married", "persons", "has_kids", "kids")
    ],
)
household_campaigns = windows(
    "household_campaigns",
    CAMPAIGNS,
    (HOUSEHOLD,),
    *(
        over("kind", "count", [4 * WEEK, 16 * WEEK], f"household_campaigns_{name}", f"kind == {kind}")
        for kind, name in enumerate("abc")
    ),
)
household_coupons = windows(
    "household_coupons", REDEMPTIONS, (HOUSEHOLD,), over("campaign", "count", LONG, "household_redemptions")
)
category_sales = windows(
    "category_sales",
    LINES,
    (CATEGORY,),
    over("sales", "sum", ALL, "category_sales"),
    over("sales", "mean", LONG, "category_price"),
    over("quantity", "sum", LONG, "category_quantity"),
)
category_buyers = windows("category_buyers", WEEKS, (CATEGORY,), over("sales", "count", ALL, "category_buyers"))
category_discounts = windows(
    "category_discounts",
    LINES,
    (CATEGORY,),
    over("retail_discount", "sum", LONG, "category_retail_discount"),
    over("coupon_discount", "sum", LONG, "category_coupon_discount"),
    over("day", "count", LONG, "category_private_lines", "private == True"),
)
category_promotions = FeatureView(
    "category_promotions",
    entities=entities("category_promotions", CATEGORY),
    source=ParquetSource("data/promotions.parquet", event_timestamp=TIME),
    schema=[Field("products_displayed", Int32), Field("products_mailed", Int32), Field("displays_per_store", Float32)],
)
purchases = windows(
    "purchases",
    LINES,
    (HOUSEHOLD, CATEGORY),
    over("sales", "sum", ALL, "bought_sales"),
    over("day", "count", ALL, "bought_lines"),
    over("quantity", "sum", LONG, "bought_quantity"),
)
purchase_weeks = windows("purchase_weeks", WEEKS, (HOUSEHOLD, CATEGORY), over("sales", "count", ALL, "bought_weeks"))
purchase_days = windows(
    "purchase_days",
    LINES,
    (HOUSEHOLD, CATEGORY),
    over("day", "max", [16 * WEEK], "last_day"),
    over("day", "min", [16 * WEEK], "first_day"),
)
department_purchases = windows(
    "department_purchases",
    LINES,
    (HOUSEHOLD, DEPARTMENT),
    over("sales", "sum", ALL, "department_sales"),
    over("day", "count", ALL, "department_lines"),
)
store_sales = windows(
    "store_sales",
    BASKETS,
    (STORE,),
    over("sales", "count", SHORT, "store_baskets"),
    over("sales", "mean", SHORT, "store_basket_sales"),
)


@on_demand_feature_view(
    sources=[purchase_days, RequestSource("week", [Field("today", Int32)])],
    schema=[Field("days_since_bought", Float32), Field("days_since_first_bought", Float32)],
)
def purchase_recency(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """How long ago the household bought from the category, last and first, within 16 weeks."""
    return {
        "days_since_bought": (inputs["today"] - inputs["last_day_112d"]).astype("float32"),
        "days_since_first_bought": (inputs["today"] - inputs["first_day_112d"]).astype("float32"),
    }


coming_week = FeatureService(
    "coming_week",
    features=[
        household_spend,
        household_visits,
        household_discounts,
        household_brands,
        household_hours,
        household_departments,
        household_profile,
        household_campaigns,
        household_coupons,
        category_sales,
        category_buyers,
        category_discounts,
        category_promotions,
        purchases,
        purchase_weeks,
        purchase_recency,
        department_purchases,
        store_sales,
    ],
)
