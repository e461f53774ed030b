FROM python:3.13-slim AS build
RUN pip install --no-cache-dir uv
WORKDIR /app
COPY pyproject.toml uv.lock README.md LICENSE NOTICE ./
COPY src src
RUN UV_PROJECT_ENVIRONMENT=/app/.venv uv sync --frozen --compile-bytecode --no-dev --no-editable --extra postgres --extra telegram --extra watch --extra ranker

FROM python:3.13-slim
COPY --from=build /app/.venv /app/.venv
RUN useradd --create-home palate && mkdir /data && chown palate /data
USER palate
WORKDIR /data
ENV PATH=/app/.venv/bin:$PATH PYTHONUNBUFFERED=1
VOLUME /data
EXPOSE 8080
HEALTHCHECK --interval=30s --start-period=30s CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/readyz')"]
CMD ["palate", "serve", "--data", "/data", "--host", "0.0.0.0"]
