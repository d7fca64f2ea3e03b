"""What every test shares."""

from hypothesis import settings

# a busy machine is not a failure
settings.register_profile("plainchant", deadline=None)
settings.load_profile("plainchant")
