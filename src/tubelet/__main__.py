"""`python -m tubelet`, and `torchrun -m tubelet train ...`."""

from tubelet.apps.cli import main

main()
