-- Every departure from one airport between two days, both included.
-- Parameters: origin (IATA code), first and last (such as 2013-05-01).
SELECT
    make_date(year, month, day) AS departs_on,
    carrier,
    flight,
    tailnum,
    origin,
    dest,
    dep_delay,
    arr_delay,
    distance
FROM flights
WHERE origin = :origin
    AND make_date(year, month, day) BETWEEN CAST(:first AS DATE) AND CAST(:last AS DATE)
ORDER BY departs_on, carrier, flight, dest
