-- How each carrier did in one month.
-- Parameters: month (1 to 12).
SELECT
    carrier,
    count(*) AS flights,
    count(*) FILTER (WHERE dep_time IS NULL) AS cancelled,
    round(avg(dep_delay), 2) AS mean_dep_delay_minutes,
    median(arr_delay) AS median_arr_delay_minutes,
    quantile_cont(arr_delay, 0.95) AS p95_arr_delay_minutes,
    sum(distance) AS miles
FROM flights
WHERE month = :month
GROUP BY carrier
ORDER BY flights DESC, carrier
