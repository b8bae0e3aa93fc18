"""One client, whatever protocol it speaks. Imports no Twisted and reads no clock."""
