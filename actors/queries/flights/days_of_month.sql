-- Departures and delays of each day of one month.
-- Parameters: month (1 to 12).
SELECT
    day,
    count(*) AS flights,
    count(*) FILTER (WHERE dep_time IS NULL) AS cancelled,
    round(avg(dep_delay), 2) AS mean_dep_delay_minutes,
    max(dep_delay) AS longest_dep_delay_minutes
FROM flights
WHERE month = :month
GROUP BY day
ORDER BY day
