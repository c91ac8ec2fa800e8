# The image of the operator, with the kubectl plugin and PostgreSQL's pg_dump and pg_restore beside it. Nothing is in it
# but these programs, the libraries that they name, CA certificates and the files of a user: no shell. PostgreSQL's part
# of it is 15 MB, 7 MB compressed.
#
#   docker build -t registry.example.com/service-release-operator:0.1.0 .
#   buildah bud -t registry.example.com/service-release-operator:0.1.0 .
#
# pg_dump dumps servers of its own version and older ones, and their backups are restored there: 18 does for every server
# up to 18. What the builder's Debian does not have is taken from the PostgreSQL project's own packages
# (apt.postgresql.org). Debian trixie has 17, bookworm 15, where those cannot be reached:
#
#   docker build --build-arg PG_MAJOR=17 -t registry.example.com/service-release-operator:0.1.0-pg17 .
#   docker build --build-arg BUILDER=docker.io/library/rust:1.95-bookworm --build-arg PG_MAJOR=15 -t registry.example.com/service-release-operator:0.1.0-pg15 .

ARG BUILDER=docker.io/library/rust:1.95-trixie
FROM ${BUILDER} AS build
ARG PG_MAJOR=18
RUN set -eu; export DEBIAN_FRONTEND=noninteractive; apt-get update -qq; \
    if ! apt-cache show "postgresql-client-$PG_MAJOR" >/dev/null 2>&1; then \
        apt-get install -y -qq --no-install-recommends postgresql-common; \
        /usr/share/postgresql-common/pgdg/apt.postgresql.org.sh -y; \
    fi; \
    apt-get install -y -qq --no-install-recommends "postgresql-client-$PG_MAJOR"; \
    install -D -s -t /root-fs/usr/bin "/usr/lib/postgresql/$PG_MAJOR/bin/pg_dump" "/usr/lib/postgresql/$PG_MAJOR/bin/pg_restore"
WORKDIR /src
COPY . .
# The caches of crates and objects stay on the building machine between builds.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin service-release-operator --bin kubectl-srel \
    && install -D -s -t /root-fs/usr/bin target/release/service-release-operator target/release/kubectl-srel
RUN set -eu; cd /root-fs; \
    ldd usr/bin/* | grep -o '/[^ :]*\.so[^ ]*' | sort -u | while read -r library; do \
        install -D "$library" ".$library"; \
    done; \
    install -D -m 644 /etc/ssl/certs/ca-certificates.crt etc/ssl/certs/ca-certificates.crt; \
    printf 'hosts: files dns\n' > etc/nsswitch.conf; \
    printf 'nonroot:x:65532:65532:nonroot:/:/sbin/nologin\n' > etc/passwd; \
    printf 'nonroot:x:65532:\n' > etc/group

FROM scratch
COPY --from=build /root-fs /
# The operator runs pg_dump and pg_restore by their names.
ENV PATH=/usr/bin:/bin
USER 65532:65532
EXPOSE 8081
ENTRYPOINT ["/usr/bin/service-release-operator"]
