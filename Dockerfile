# The image of the operator, with the kubectl plugin beside it. Nothing is in it but the two
# programs, the libraries that they name, CA certificates and the files of a user: no shell.
#
#   docker build -t registry.example.com/service-release-operator:0.1.0 .
#   buildah bud -t registry.example.com/service-release-operator:0.1.0 .

ARG BUILDER=docker.io/library/rust:1.95-bookworm
FROM ${BUILDER} AS build
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
USER 65532:65532
EXPOSE 8081
ENTRYPOINT ["/usr/bin/service-release-operator"]
