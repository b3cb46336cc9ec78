"""The shop's tasks for Celery, with a broker that is a folder."""

import os

from celery import Celery
from tests.integrations.in_app.shop import sell

folder = os.environ["BROKER"]
app = Celery("tasks", broker="filesystem://")
app.conf.broker_transport_options = {
    "data_folder_in": folder,
    "data_folder_out": folder,
    "control_folder": f"{folder}/control",
}
app.conf.task_ignore_result = True


@app.task
def sell_later() -> None:
    sell()
