"""The OCI image model: pure values, no I/O, standard library only.

Everything above (store, builder, transfer, runner, tierce) speaks in these types.
Constructing one validates it, so holding one is proof that it is well formed.
"""
