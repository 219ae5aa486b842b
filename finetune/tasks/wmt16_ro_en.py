"""WMT16 the other way: Romanian -> English."""

from finetune.tasks import wmt16

METRICS, OPTIONS, DECODE = wmt16.METRICS, wmt16.OPTIONS, wmt16.DECODE
DIRECTION = wmt16.DIRECTION.reversed("wmt16_ro_en")
read, save = DIRECTION.read, DIRECTION.save
