-- How late the carriers of each airport were over the 30 days up to each day of the year.
SELECT DISTINCT
    make_date(year, month, day) AS day,
    origin,
    carrier,
    count(*) OVER past AS flights,
    round(avg(arr_delay) OVER past, 2) AS mean_arr_delay_minutes,
    quantile_cont(arr_delay, 0.95) OVER past AS p95_arr_delay_minutes
FROM flights
WINDOW past AS (
    PARTITION BY origin, carrier
    ORDER BY make_date(year, month, day)
    RANGE BETWEEN INTERVAL 29 DAYS PRECEDING AND CURRENT ROW
)
ORDER BY day, origin, carrier
