# bidsfit as a container for Linux on x86-64: docker build -t bidsfit . (docs/docker.md)
# With PyHySCO, which is under the GPL: docker build --target distortion -t bidsfit:distortion .
ARG BASE=docker.io/library/python:3.11-slim-bookworm

FROM ${BASE} AS dependencies
# Where torch for processors alone is found; empty: where pip looks anyway.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PATH=/opt/bidsfit/bin:$PATH \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_EXTRA_INDEX_URL=${TORCH_INDEX}
RUN python3 -m venv /opt/bidsfit
COPY requirements.lock /opt/bidsfit/
# All of the lock but the lines of PyHySCO, and of torch neither its tests nor what C++ is compiled with (145 MB).
RUN sed '/^pyhysco==/,/[^\\]$/d' /opt/bidsfit/requirements.lock > /tmp/plain.lock \
    && pip install --require-hashes -r /tmp/plain.lock \
    && cd /opt/bidsfit/lib/python3*/site-packages/torch \
    && rm -r include test /tmp/plain.lock

FROM dependencies AS build
WORKDIR /src
COPY . .
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /wheel .

FROM ${BASE} AS plain
# Of an update of bidsfit, only the layers after this one are new.
COPY --from=dependencies /opt/bidsfit /opt/bidsfit
# Any user may run it, with a read-only root, without a home and without a network. Compiled code is for all processors
# with AVX2 (since 2013). What bidsfit would keep in the cache folder of a user, which cannot be made here, it keeps in the
# work folder.
ENV PATH=/opt/bidsfit/bin:$PATH \
    HOME=/tmp \
    XDG_CACHE_HOME=/opt/bidsfit/none \
    NUMBA_CPU_NAME=x86-64-v3 \
    NUMBA_CPU_FEATURES= \
    NO_ET=1 \
    PYTHONNOUSERSITE=1
COPY --from=build /wheel /opt/bidsfit/wheel
# Login shells, in which some platforms run it, have a PATH of their own.
RUN pip install --no-cache-dir --no-index --no-deps /opt/bidsfit/wheel/*.whl \
    && ln -s /opt/bidsfit/bin/bidsfit /opt/bidsfit/bin/bidsfit-lab /usr/local/bin/
# Compiled code of all models and of the preprocessing, so that runs need not compile it.
RUN cd /tmp \
    && export BIDSFIT_CACHE_DIR=/tmp/cache \
    && options="--trust off --report-voxels none --skip-bids-validation" \
    && for model in ivim smt2; do \
        bidsfit-lab phantom $model --model $model --raw --shape 16 16 2 --participants 1 --patients 0 \
        && bidsfit $model $model-out participant --estimators lsq mle bayes --skip susceptibility $options \
        && bidsfit $model $model-rician participant --estimators mle --noise rician --preprocess none $options \
        || exit; \
    done \
    && compiled=$(python -c 'from bidsfit.compiling import SHIPPED; print(SHIPPED)') \
    && mkdir $compiled && mv cache/*.compiled $compiled && chmod -R a+rX $compiled && rm -rf /tmp/*
ARG VERSION=0.1.0
ENV BIDSFIT_CONTAINER_TAG=bidsfit:${VERSION}
LABEL org.opencontainers.image.title="bidsfit" \
      org.opencontainers.image.description="Quantitative maps from diffusion MRI, and how far each can be trusted" \
      org.opencontainers.image.source="https://github.com/bidsfit/bidsfit" \
      org.opencontainers.image.authors="The bidsfit developers" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
WORKDIR /tmp
USER 1000:1000
ENTRYPOINT ["bidsfit"]

# The same with PyHySCO; whoever passes this image on does so under both licences.
FROM plain AS distortion
USER 0:0
RUN pip install --no-cache-dir --no-deps --require-hashes -r /opt/bidsfit/requirements.lock
LABEL org.opencontainers.image.licenses="Apache-2.0 AND GPL-3.0-only"
USER 1000:1000

FROM plain
