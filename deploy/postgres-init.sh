#!/bin/sh
# Run once by the image, when the database is made: a user that owns one database and may do nothing else.
set -eu
psql --no-psqlrc --set=ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres <<'SQL'
\set password `cat /secrets/bartizan`
CREATE ROLE bartizan LOGIN PASSWORD :'password';
CREATE DATABASE bartizan OWNER bartizan ENCODING 'UTF8' TEMPLATE template0;
REVOKE ALL ON DATABASE bartizan FROM PUBLIC;
SQL
