"""IWSLT14 the other way: English -> German."""

from finetune.tasks import iwslt14

METRICS, OPTIONS, DECODE = iwslt14.METRICS, iwslt14.OPTIONS, iwslt14.DECODE
DIRECTION = iwslt14.DIRECTION.reversed("iwslt14_en_de")
read, save = DIRECTION.read, DIRECTION.save
