# bidsfit as a container: docker build -t bidsfit .
# With PyHySCO, which is under the GPL: docker build --target distortion -t bidsfit:distortion .
ARG BASE=docker.io/library/python:3.11-slim-bookworm

FROM ${BASE} AS build
WORKDIR /src
RUN python3 -m venv /opt/bidsfit
COPY . .
RUN /opt/bidsfit/bin/pip install --no-cache-dir --disable-pip-version-check -c constraints.txt . \
    && cp constraints.txt /opt/bidsfit

FROM ${BASE} AS plain
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="bidsfit" \
      org.opencontainers.image.description="Quantitative maps from diffusion MRI, and how far each can be trusted" \
      org.opencontainers.image.source="https://github.com/bidsfit/bidsfit" \
      org.opencontainers.image.authors="The bidsfit developers" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
COPY --from=build /opt/bidsfit /opt/bidsfit
# Any user may run it, with a read-only root and without a home.
ENV PATH=/opt/bidsfit/bin:$PATH \
    HOME=/tmp \
    NO_ET=1 \
    PYTHONNOUSERSITE=1 \
    BIDSFIT_CONTAINER_TAG=bidsfit:${VERSION}
WORKDIR /tmp
# Compiled code of all models and of the preprocessing, for processors like this one, so that runs need not compile it.
RUN compiled=$(python -c 'from bidsfit.compiling import SHIPPED; print(SHIPPED)') \
    && for model in ivim smt2; do \
        bidsfit-lab phantom $model --model $model --raw --shape 32 32 2 --participants 1 --patients 0 \
        && bidsfit $model out participant --estimators lsq mle bayes bayesmap --noise rician --skip susceptibility \
            --skip-bids-validation --cache-dir $compiled \
        || exit; \
    done \
    && chmod -R a+rX $compiled && rm -rf /tmp/*
ENTRYPOINT ["bidsfit"]

# The same with PyHySCO; whoever passes this image on does so under both licences.
FROM plain AS distortion
LABEL org.opencontainers.image.licenses="Apache-2.0 AND GPL-3.0-only"
RUN /opt/bidsfit/bin/pip install --no-cache-dir --disable-pip-version-check -c /opt/bidsfit/constraints.txt \
    'bidsfit[distortion]'

FROM plain
