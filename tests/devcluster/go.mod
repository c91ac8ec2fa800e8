module devcluster.invalid/devcluster

go 1.25
