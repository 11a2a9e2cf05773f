"""The cluster policy: gates the tasks of DAGs tagged ``cagg`` without a change of the DAG. Off until configured."""
