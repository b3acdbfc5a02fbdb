"""Senselog: a Kafka broker whose topics can be searched by meaning.

The only import name that reaches site-packages. The broker's own packages (`broker`, `protocol`, `storage`, `vector`)
live beside this one in a checkout and under `senselog/_app` in a wheel, because a wheel that shipped them at the top
level would overwrite other distributions of those names (scikit-hep's `vector`, for one).
"""

__version__ = "0.1.0"
