from mlpspace.profile import *
from mlpspace.profile import Profile, profile
