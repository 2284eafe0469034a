# The service with its models. All state is in /data and temporary files are in /tmp, so the root file
# system may be read-only.
#
#   docker build -t visavis .                                    runs on the CPU
#   docker build -t visavis:cuda --build-arg RUNTIME=cuda .      brings CUDA and cuDNN, runs on both

FROM python:3.12-slim AS build
# cpu is the default because ONNX Runtime's GPU build is four times as large and of no use here without
# the CUDA libraries, which are larger still.
ARG RUNTIME=cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
# Dependencies come first, so that a change of the code does not install them again. For the CPU, the
# project's own requirements are altered, so that what is installed still agrees with what it says it needs.
COPY pyproject.toml ./
RUN case "$RUNTIME" in \
      cpu) extras=postgres \
        && sed -i -E -e '/^ *"onnxruntime-gpu>=/d' -e 's/^( *"onnxruntime>=[^;"]*);[^"]*"/\1"/' pyproject.toml ;; \
      cuda) extras=postgres,cuda ;; \
      *) echo "RUNTIME must be cpu or cuda, not '$RUNTIME'" >&2; exit 1 ;; \
    esac \
 && python3 -c "import sys, tomllib; \
p = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
print(*p['dependencies'], *(r for e in sys.argv[1].split(',') for r in p['optional-dependencies'][e]), sep='\n')" \
      "$extras" > requirements.txt \
 && python3 -m venv --without-pip /opt/visavis \
 && pip --python /opt/visavis install -r requirements.txt
COPY README.md LICENSE NOTICE ./
COPY app app
COPY training training
COPY migrations migrations
COPY models models
RUN pip --python /opt/visavis install --no-deps . \
 && pip --python /opt/visavis check

FROM python:3.12-slim
LABEL org.opencontainers.image.title="Visavis" \
      org.opencontainers.image.description="Face and image verification service" \
      org.opencontainers.image.licenses="Apache-2.0 AND MIT"
# A fixed number, so that volumes keep their owner and runAsNonRoot can be checked.
RUN groupadd --gid 10001 visavis \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin visavis \
 && install -d -m 0700 -o visavis -g visavis /data
COPY --from=build /opt/visavis /opt/visavis
# Any address but loopback demands API keys: docker exec CONTAINER visavis keys create NAME
ENV PATH=/opt/visavis/bin:$PATH \
    VISAVIS_HOST=0.0.0.0 \
    VISAVIS_DATABASE_URL=sqlite:////data/visavis.db
WORKDIR /data
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
# http.client, because urllib would ask a proxy that the environment names.
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 CMD ["python3", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('VISAVIS_PORT', '8000')), timeout=4); c.request('GET', '/readyz'); sys.exit(c.getresponse().status != 200)"]
CMD ["visavis", "serve"]
