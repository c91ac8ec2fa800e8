// Pins golang-migrate, which the end-to-end tests migrate with.
module devcluster.invalid/golang-migrate

go 1.26.0

require github.com/golang-migrate/migrate/v4 v4.19.1
