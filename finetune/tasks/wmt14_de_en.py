"""WMT14 the other way: German -> English."""

from finetune.tasks import wmt14

METRICS, OPTIONS, DECODE = wmt14.METRICS, wmt14.OPTIONS, wmt14.DECODE
DIRECTION = wmt14.DIRECTION.reversed("wmt14_de_en")
read, save = DIRECTION.read, DIRECTION.save
