# torchvision's types name neither its arguments nor its results. These stubs have the functions that convscope calls.
from torchvision import models as models
