"""What Amazon's registries need that is not the distribution protocol: who we are at AWS, tokens, repositories.

``identity.py`` finds keys, ``signing.py`` signs a request with them, ``api.py`` sends it,
``ecr.py`` asks for tokens and makes repositories. Loaded when a name is in such a registry.
"""
