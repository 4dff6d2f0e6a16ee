"""The features of PROJECT."""

from datetime import timedelta

import numpy as np

from feature_store import (
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

user = Entity("user", join_key="user_id", dtype=Int64)
product = Entity("product", join_key="product_id", dtype=Int64)

product_stats = FeatureView(
    "product_stats",
    entities=[product],
    source=ParquetSource("data/products.parquet", event_timestamp="event_timestamp"),
    ttl=timedelta(days=30),
    schema=[Field("price", Float32), Field("clicks_7d", Int32, default=0)],
    description="What a product costs and how often it is looked at.",
)

user_stats = FeatureView(
    "user_stats",
    entities=[user],
    source=ParquetSource("data/users.parquet", event_timestamp="event_timestamp"),
    ttl=timedelta(days=90),
    schema=[Field("orders_30d", Int32, default=0), Field("mean_basket", Float32)],
    description="What a user has bought.",
)


@on_demand_feature_view(
    sources=[product_stats[["price"]], RequestSource("request", [Field("basket_price", Float32)])],
    schema=[Field("share_of_basket", Float32)],
)
def basket(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """How a product's price compares with what is in the basket already. The same code offline."""
    return {"share_of_basket": inputs["price"] / inputs["basket_price"]}


ranking = FeatureService("ranking", features=[product_stats, user_stats, basket])
